"""Public files from a server that fails, as the rule fetches them."""

import hashlib
import http.server
import shutil
import ssl
import subprocess
import threading

import pytest
from conftest import lay_out, snakemake

NAME = "allTFs_mm.txt"
CONTENT = b"Tbx6\nSox2\n" * 1000
TARGET = f"resources/downloads/{NAME}"

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="makes no certificate")


class Server(http.server.ThreadingHTTPServer):
    """Answers over https, each request as the next of ``answers`` says, the last for ever."""

    def __init__(self, folder, answers):
        super().__init__(("localhost", 0), Handler)
        self.answers = list(answers)
        self.n_requests = 0
        key, certificate = folder / "key.pem", folder / "certificate.pem"
        subprocess.run(
            [
                "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1",
                "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
                "-keyout", key, "-out", certificate,
            ],
            check=True, capture_output=True,
        )  # fmt: skip
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.trusted = {"REQUESTS_CA_BUNDLE": str(certificate)}
        self.url = f"https://localhost:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        answer = self.server.answers[min(self.server.n_requests, len(self.server.answers) - 1)]
        self.server.n_requests += 1
        if answer == "error":
            self.send_error(503)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[: len(CONTENT) // 2] if answer == "half" else CONTENT)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def study(tmp_path):
    return lay_out(tmp_path / "study")


@pytest.fixture
def serve(tmp_path):
    """Start a server with some answers."""
    servers = []

    def start(*answers):
        servers.append(Server(tmp_path, answers))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def name_mirror(study, url, sha256=""):
    with (study / "config.yaml").open("a") as config:
        config.write(f"resources:\n  mirror: {url}\n")
        if sha256:
            config.write(f"  sha256:\n    {NAME}: '{sha256}'\n")


def sentences(run):
    return [line for line in run.stdout.splitlines() if line.startswith("Error: ")]


def test_a_server_that_fails_twice_is_asked_again(study, serve):
    server = serve("half", "error", "whole")
    name_mirror(study, server.url, hashlib.sha256(CONTENT).hexdigest())
    run = snakemake(study, TARGET, **server.trusted)
    assert run.returncode == 0, run.stdout[-3000:]
    assert server.n_requests == 3 and (study / TARGET).read_bytes() == CONTENT
    assert "again 2 more times" in run.stdout and not sentences(run)


@pytest.mark.parametrize(
    ("answer", "sha256", "words"),
    [
        ("half", "", "IncompleteRead(5000 bytes read"),
        ("whole", "0" * 64, "is not the file that was asked for"),
    ],
)
def test_half_a_file_or_another_is_none(study, serve, answer, sha256, words):
    server = serve(answer)
    name_mirror(study, server.url, sha256)
    run = snakemake(study, TARGET, **server.trusted)
    assert run.returncode != 0 and server.n_requests == 4
    assert all(words in sentence for sentence in sentences(run)) and sentences(run)
    assert list(study.glob("resources/downloads/*")) == []


def test_without_a_network_the_sentence_says_how_to_do_without(study, serve):
    server = serve("whole")
    server.shutdown()
    server.server_close()
    name_mirror(study, server.url)
    run = snakemake(study, TARGET, **server.trusted)
    assert run.returncode != 0
    assert "cannot be fetched" in sentences(run)[0] and "resources.mirror" in sentences(run)[0]
    assert list(study.glob("resources/downloads/*")) == []


def test_a_server_that_nobody_vouches_for_is_not_believed(study, serve):
    server = serve("whole")
    name_mirror(study, server.url)
    run = snakemake(study, TARGET)
    assert run.returncode != 0 and server.n_requests == 0
    assert "CERTIFICATE_VERIFY_FAILED" in sentences(run)[0]
