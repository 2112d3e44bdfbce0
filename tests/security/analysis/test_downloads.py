"""Downloads come over https from end to end, tried with servers on this machine.

Runs in the environment `analysis`; the certificate is made by openssl, and where there is none
that part is skipped.
"""

import gzip
import hashlib
import shutil
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from scdyn.errors import InputError
from scdyn.io import download
from scdyn.io.download import Resource, fetch

CONTENT = b"Tbx6\nSox2\n"
PACKED = gzip.compress(CONTENT)


def serve(answers, certificate=None):
    """Serve paths on a free port; an answer is content, or an address to go to.

    Of ``/half`` only half of the content comes, of ``/half_once`` the first time; what ends in
    ``.gz`` is called an encoding, as some servers do.
    """
    served = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            answer = answers[self.path]
            self.send_response(302 if isinstance(answer, str) else 200)
            if isinstance(answer, str):
                self.send_header("Location", answer)
                answer = b""
            self.send_header("Content-Length", str(len(answer)))
            if self.path.endswith(".gz"):
                self.send_header("Content-Encoding", "gzip")
            self.end_headers()
            is_half = self.path == "/half" or (self.path == "/half_once" and not served)
            served.append(self.path)
            self.wfile.write(answer[: len(answer) // 2] if is_half else answer)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    kind = "https" if certificate else "http"
    return server, f"{kind}://127.0.0.1:{server.server_port}"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    if not shutil.which("openssl"):
        pytest.skip("no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("certificate")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture
def site(certificate, monkeypatch, tmp_path):
    """A site that is trusted, one without TLS, and files of this machine."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate[0]))
    monkeypatch.setattr(download, "RETRIES", 0)
    (tmp_path / "secret").write_text("secret")
    plain, plain_url = serve({"/tfs.txt": CONTENT})
    answers = {
        "/tfs.txt": CONTENT,
        "/tfs.txt.gz": PACKED,
        "/half": CONTENT,
        "/half_once": CONTENT,
        "/moved": "/tfs.txt",
        "/down": f"{plain_url}/tfs.txt",
        "/twice": "/down",
        "/file": (tmp_path / "secret").as_uri(),
        "/ftp": "ftp://127.0.0.1/tfs.txt",
        "/round": "/round",
    }
    secure, url = serve(answers, certificate)
    yield url
    for server in (plain, secure):
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("path", ["/tfs.txt", "/moved"])
def test_https_is_followed_to_https(site, tmp_path, path):
    target = tmp_path / "tfs.txt"
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert fetch(Resource(site + path, digest), target) == digest
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("path", ["/down", "/twice", "/file", "/ftp"])
def test_a_server_cannot_lead_away_from_https(site, tmp_path, path):
    with pytest.raises(InputError, match="its server leads to .* not https"):
        fetch(Resource(site + path), tmp_path / "tfs.txt")
    assert not (tmp_path / "tfs.txt").exists()


def test_a_server_that_leads_in_circles_is_given_up(site, tmp_path):
    with pytest.raises(InputError, match="cannot be fetched"):
        fetch(Resource(site + "/round"), tmp_path / "tfs.txt")


def test_a_certificate_that_is_not_trusted_is_refused(site, tmp_path, monkeypatch):
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(InputError, match=r"cannot be fetched .*CERTIFICATE_VERIFY_FAILED"):
        fetch(Resource(site + "/tfs.txt"), tmp_path / "tfs.txt")


def test_a_packed_file_stays_packed(site, tmp_path):
    fetch(Resource(f"{site}/tfs.txt.gz"), tmp_path / "tfs.txt.gz")
    assert (tmp_path / "tfs.txt.gz").read_bytes() == PACKED


def test_half_a_download_is_none(site, tmp_path):
    with pytest.raises(InputError, match="cannot be fetched .*IncompleteRead"):
        fetch(Resource(f"{site}/half"), tmp_path / "out" / "tfs.txt")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_download_that_fails_is_tried_again(site, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "RETRIES", 1)
    fetch(Resource(f"{site}/half_once"), tmp_path / "tfs.txt")
    assert (tmp_path / "tfs.txt").read_bytes() == CONTENT
