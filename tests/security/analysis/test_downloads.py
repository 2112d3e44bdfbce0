"""Downloads come over https from end to end, tried with servers on this machine.

Runs in the environment `analysis`; the certificate is made by openssl, and where there is none
that part is skipped.
"""

import hashlib
import shutil
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest

from scdyn.errors import InputError
from scdyn.io.download import HttpsOnly, Resource, fetch

CONTENT = b"Tbx6\nSox2\n"


def serve(answers, certificate=None):
    """Serve paths on a free port; an answer is content, or an address to go to."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            answer = answers[self.path]
            self.send_response(302 if isinstance(answer, str) else 200)
            if isinstance(answer, str):
                self.send_header("Location", answer)
                answer = b""
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

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
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    (tmp_path / "secret").write_text("secret")
    plain, plain_url = serve({"/tfs.txt": CONTENT})
    answers = {
        "/tfs.txt": CONTENT,
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
    with pytest.raises(
        InputError, match=r"its server leads to .* not https|url .file:.* is not allowed"
    ):
        fetch(Resource(site + path), tmp_path / "tfs.txt")
    assert not (tmp_path / "tfs.txt").exists()


def test_a_server_that_leads_in_circles_is_given_up(site, tmp_path):
    with pytest.raises(InputError, match="cannot be fetched"):
        fetch(Resource(site + "/round"), tmp_path / "tfs.txt")


def test_a_certificate_that_is_not_trusted_is_refused(site, tmp_path, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(InputError, match=r"cannot be fetched .*CERTIFICATE_VERIFY_FAILED"):
        fetch(Resource(site + "/tfs.txt"), tmp_path / "tfs.txt")


def test_without_a_certificate_the_rule_is_the_same():
    request = SimpleNamespace(full_url="https://a/x", get_method=lambda: "GET", headers={})
    for url in ("http://a/x", "HTTP://a/x", "file:///etc/passwd", "ftp://a/x"):
        with pytest.raises(InputError, match="which is not https"):
            HttpsOnly().redirect_request(request, None, 302, "", {}, url)
