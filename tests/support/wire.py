"""Servers that misbehave, their certificates, and an environment without proxies."""

import socket
import socketserver
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from itertools import takewhile
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import urlencode

import pytest
import responses
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

#: In seconds, and never waited for: a test lasts longer than half of this only if a deadline does not hold.
TOO_LONG = 10.0

#: What a server does with a connection once it has read a request.
Script = Callable[[socket.socket], None]


def http(body: bytes = b"", status: str = "200 OK", *headers: str) -> bytes:
    """Return an HTTP response after which the connection is closed."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def saying(*parts: bytes) -> Script:
    """Send this, and close."""

    def script(sock: socket.socket) -> None:
        for part in parts:
            sock.sendall(part)

    return script


def dripping(start: bytes, drop: bytes) -> Script:
    """Send the start, and then drop after drop, each well within every read timeout."""

    def script(sock: socket.socket) -> None:
        sock.sendall(start)
        give_up = time.monotonic() + TOO_LONG
        while time.monotonic() < give_up:
            sock.sendall(drop)
            time.sleep(0.02)

    return script


def flooding(start: bytes, wave: bytes) -> Script:
    """Send the start, and then wave after wave, as fast as the client reads."""

    def script(sock: socket.socket) -> None:
        sock.sendall(start)
        give_up = time.monotonic() + TOO_LONG
        while time.monotonic() < give_up:
            sock.sendall(wave)

    return script


def silent(sock: socket.socket) -> None:
    """Send nothing until the client closes the connection."""
    sock.settimeout(TOO_LONG)
    sock.recv(1)


def reset(sock: socket.socket) -> None:
    """Let the connection be reset, not closed."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def read_request(sock: socket.socket) -> bytes:
    """Return a request as it was sent, or nothing if the client has closed the connection."""
    with sock.makefile("rb") as file:
        head = b"".join(takewhile(lambda line: line not in (b"", b"\r\n"), file))
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        return head and head + b"\r\n" + file.read(int(length or 0))


class Server(socketserver.ThreadingTCPServer):
    """A server that reads one request per connection, remembers it, and answers by a script.

    :ivar seen: the requests, as they were sent.
    """

    allow_reuse_address = True

    def __init__(self, script: Script, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = script
        self.context = context
        self.seen: list[bytes] = []
        #: How many bytes to read of a request that is not HTTP, such as one to a SOCKS proxy.
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
        """Return the headers of the request with this number, counted from 0."""
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
    """Return a function that starts a server, which stops with the test."""
    with ExitStack() as servers:

        def serve(script: Script, context: ssl.SSLContext | None = None) -> Server:
            server = Server(script, context)
            servers.callback(server.stop)
            return server

        yield serve


Serve = Callable[..., Server]


@pytest.fixture
def certificate(tmp_path: Path) -> Callable[..., tuple[ssl.SSLContext, str]]:
    """Return a function that makes a self-signed certificate.

    It returns the TLS context of a server with this certificate, and the path of a CA bundle that contains it.
    """

    def certificate(host: str, valid_for: timedelta = timedelta(days=1)) -> tuple[ssl.SSLContext, str]:
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
            .not_valid_after(now + valid_for)
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
    """Let the environment name no proxy and no CA bundle."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


BASE_URL = "https://demo.aicrisk.com"


def silent_flow(wire: responses.RequestsMock, answer: dict[str, Any], base_url: str = BASE_URL) -> list[str]:
    """Let AIRisk's two OAuth endpoints answer a flow without a browser.

    :param answer: the token endpoint's response, as ``responses`` takes it.
    :returns: the states that the authorization endpoint has seen so far.
    """
    states: list[str] = []

    def authorize(request: Any) -> tuple[int, dict[str, str], str]:
        states.append(request.params["state"])
        query = urlencode({"code": "code-canary", "state": states[-1]})
        return 302, {"Location": f"https://app.example.com/airisk/callback/?{query}"}, ""

    wire.add_callback(responses.GET, f"{base_url}/api/oauth2", authorize)
    wire.post(f"{base_url}/api/oauth2/Token", **answer)
    return states


@contextmanager
def resolving_to(addresses: Callable[[], list[tuple[str, int]]]) -> Iterator[None]:
    """Let the host ``airisk.invalid`` have these addresses."""
    resolve = socket.getaddrinfo

    def look_up(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in ("airisk.invalid", b"airisk.invalid"):
            return resolve(host, *args, **kwargs)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses()]

    with mock.patch("socket.getaddrinfo", look_up):
        yield
