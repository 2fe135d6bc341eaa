"""Misbehaving servers, and the environment variables for reaching them."""

import socket
import socketserver
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from itertools import takewhile
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import responses
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

#: Seconds. No test waits for so long: if a test takes more than half of this, a deadline was not obeyed.
TOO_LONG = 10.0

Script = Callable[[socket.socket], None]


def http(body: bytes = b"", status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def saying(*parts: bytes) -> Script:
    """Send these parts, and close."""

    def script(sock: socket.socket) -> None:
        for part in parts:
            sock.sendall(part)

    return script


def dripping(start: bytes, drop: bytes) -> Script:
    """Send a beginning, and then a little again and again, faster than any read timeout."""

    def script(sock: socket.socket) -> None:
        sock.sendall(start)
        end = time.monotonic() + TOO_LONG
        while time.monotonic() < end:
            sock.sendall(drop)
            time.sleep(0.02)

    return script


def flooding(start: bytes, wave: bytes) -> Script:
    """Send a beginning, and then the same data again and again, as fast as it is received."""

    def script(sock: socket.socket) -> None:
        sock.sendall(start)
        end = time.monotonic() + TOO_LONG
        while time.monotonic() < end:
            sock.sendall(wave)

    return script


def silent(sock: socket.socket) -> None:
    sock.settimeout(TOO_LONG)
    sock.recv(1)


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def read_request(sock: socket.socket) -> bytes:
    with sock.makefile("rb") as file:
        head = b"".join(takewhile(lambda line: line not in (b"", b"\r\n"), file))
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        return head and head + b"\r\n" + file.read(int(length or 0))


class Server(socketserver.ThreadingTCPServer):
    """Reads one request from each connection, records it, and answers with a script."""

    allow_reuse_address = True

    def __init__(self, script: Script, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = script
        self.context = context
        self.seen: list[bytes] = []
        #: If not 0, the length in bytes of a request that is not HTTP.
        self.greeting = 0
        self.port = int(self.server_address[1])
        self.address = ("127.0.0.1", self.port)
        self.url = f"http{'s' if context else ''}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self._thread.start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()

    def headers(self, number: int = 0) -> dict[str, str]:
        lines = self.seen[number].partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
        return dict(line.split(": ", 1) for line in lines)


class _Handler(socketserver.BaseRequestHandler):
    server: Server

    def handle(self) -> None:
        with suppress(OSError):
            if self.server.context is None:
                self.answer(self.request)
            else:
                with self.server.context.wrap_socket(self.request, server_side=True) as sock:
                    self.answer(sock)

    def answer(self, sock: socket.socket) -> None:
        sock.settimeout(TOO_LONG)
        if request := sock.recv(self.server.greeting) if self.server.greeting else read_request(sock):
            self.server.seen.append(request)
            self.server.script(sock)


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Start servers that are stopped at the end of the test."""
    with ExitStack() as servers:

        def serve(script: Script, context: ssl.SSLContext | None = None) -> Server:
            server = Server(script, context)
            servers.callback(server.stop)
            return server

        yield serve


Serve = Callable[..., Server]


@pytest.fixture
def certificate(tmp_path: Path) -> Callable[..., tuple[ssl.SSLContext, str]]:
    """Make self-signed certificates: the context for a server, and the path of a bundle that trusts it."""

    def certificate(host: str, ends_in: timedelta = timedelta(days=1)) -> tuple[ssl.SSLContext, str]:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "airisk")])
        try:
            subject: x509.GeneralName = x509.IPAddress(ip_address(host))
        except ValueError:
            subject = x509.DNSName(host)
        now = datetime.now(UTC)
        made = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + ends_in)
            .add_extension(x509.SubjectAlternativeName([subject]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        pem = serialization.Encoding.PEM
        bundle, both = tmp_path / f"{host}.pem", tmp_path / f"{host}-with-key.pem"
        bundle.write_bytes(made.public_bytes(pem))
        plain = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        both.write_bytes(made.public_bytes(pem) + key.private_bytes(pem, *plain))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(both)
        return context, str(bundle)

    return certificate


Certificate = Callable[..., tuple[ssl.SSLContext, str]]


@pytest.fixture
def nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove proxies and CA bundles from the environment."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


BASE_URL = "https://demo.aicrisk.com"


def silent_flow(wire: responses.RequestsMock, answer: dict[str, Any], base_url: str = BASE_URL) -> list[str]:
    """Make AIRisk's two endpoints answer without a server, and return a list that collects the states."""
    states: list[str] = []

    def authorize(request: Any) -> tuple[int, dict[str, str], str]:
        states.append(request.params["state"])
        query = urlencode({"code": "code-canary", "state": states[-1]})
        return 302, {"Location": f"https://app.example.com/airisk/callback/?{query}"}, ""

    wire.add_callback(responses.GET, f"{base_url}/api/oauth2", authorize)
    wire.post(f"{base_url}/api/oauth2/Token", **answer)
    return states
