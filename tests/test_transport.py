"""The two OAuth endpoints, against a server that does its worst: exactly what is sent, and over in time."""

import asyncio
import gzip
import json
import socket
import socketserver
import ssl
import struct
import threading
import time
import traceback
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from airisk_oauth import AIRiskSession, conf, flow
from airisk_oauth.async_transport import AsyncOAuthClient
from airisk_oauth.exceptions import AIRiskError, AIRiskInvalidResponse, AIRiskRefused, AIRiskUnavailable
from airisk_oauth.protocol import Calls, PageShown, Result, Secret
from airisk_oauth.transport import USER_AGENT, OAuthClient
from tests.flows import give_token

if TYPE_CHECKING:
    from pytest_django import Settings

CODE, STATE, SECRET, TOKEN = (Secret(f"canary-{name}/+=&") for name in ("code", "state", "secret", "token"))
REDIRECT_URI = "https://app.example.com/airisk/callback/"
GRANT = json.dumps({"access_token": "a-token"}).encode()
#: Seconds, and none that anybody waits: only a deadline that does not hold makes a test last longer than half of them.
TOO_LONG = 10.0

Script = Callable[[socket.socket], None]


def http(body: bytes = b"", status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def saying(*parts: bytes) -> Script:
    """Say this, and close."""

    def script(sock: socket.socket) -> None:
        for part in parts:
            sock.sendall(part)

    return script


def dripping(start: bytes, drop: bytes) -> Script:
    """Say this, and then drop after drop, each well within every read timeout."""

    def script(sock: socket.socket) -> None:
        sock.sendall(start)
        end = time.monotonic() + TOO_LONG
        while time.monotonic() < end:
            sock.sendall(drop)
            time.sleep(0.02)

    return script


def flooding(start: bytes, wave: bytes) -> Script:
    """Say this, and then the same again and again, as fast as it is taken."""

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
    """Reads one request a connection, remembers it, and answers by a script."""

    allow_reuse_address = True

    def __init__(self, script: Script, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = script
        self.context = context
        self.seen: list[bytes] = []
        self.url = f"http{'s' if context else ''}://127.0.0.1:{self.server_address[1]}"
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
        if request := read_request(sock):
            self.server.seen.append(request)
            self.server.script(sock)


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Start servers that end with the test."""
    with ExitStack() as servers:

        def serve(script: Script, context: ssl.SSLContext | None = None) -> Server:
            server = Server(script, context)
            servers.callback(server.stop)
            return server

        yield serve


class Blocking(ExitStack):
    """The asynchronous client, driven from here."""

    def __init__(self, deployment: conf.Deployment) -> None:
        super().__init__()
        self.deployment = deployment
        self.client = AsyncOAuthClient(deployment)
        self.loop = self.enter_context(asyncio.Runner())
        self.callback(lambda: self.loop.run(self.client.__aexit__()))

    def run(self, calls: Calls[Result]) -> Result:
        return self.loop.run(self.client.run(calls))


AnyClient = OAuthClient | Blocking


@pytest.fixture(params=[OAuthClient, Blocking])
def client(request: pytest.FixtureRequest, settings: "Settings") -> Iterator[Callable[..., AnyClient]]:
    """Make clients of a deployment at a URL, closed with the test."""
    with ExitStack() as clients:

        def client(url: str, **options: Any) -> AnyClient:
            required = {
                "BASE_URL": url,
                "CLIENT_ID": "client-1",
                "CLIENT_SECRET": str(SECRET),
                "REDIRECT_URI": REDIRECT_URI,
            }
            settings.AIRISK_OAUTH = {"default": {**required, **options}}
            made: AnyClient = clients.enter_context(request.param(conf.deployment()))
            return made

        yield client


@pytest.fixture(autouse=True)
def nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


Serve = Callable[..., Server]
ClientOf = Callable[..., AnyClient]


def exchange(client: AnyClient, userid: str | None = "user_42") -> Any:
    return client.run(flow.exchange(client.deployment, CODE, userid=userid))


def authorize(client: AnyClient) -> Any:
    return client.run(flow.authorize(client.deployment, state=STATE, userid="user_42"))


both = pytest.mark.parametrize("call", [exchange, authorize])


def failure(call: Callable[[AnyClient], Any], client: AnyClient) -> Exception:
    """The error that a call ends with: one of ours, in time, with no secret in its words, traceback or locals."""
    began = time.monotonic()
    with pytest.raises((AIRiskError, PageShown)) as raised:
        call(client)
    assert time.monotonic() - began < TOO_LONG / 2
    error: Exception = raised.value
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None
    shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert "OAuthClient object at" in shown
    shown += f"{error!r} {vars(error)}"
    assert "canary" not in shown
    return error


def assert_is_left_within(seconds: float, client: AnyClient) -> None:
    """A busy machine needs more time now and then; a deadline that does not hold needs it every time."""
    for _try in range(5):
        began = time.monotonic()
        assert isinstance(failure(exchange, client), AIRiskUnavailable)
        if time.monotonic() - began < seconds:
            return
    pytest.fail(f"This never took less than {seconds} s.")


# What is sent


def test_the_token_request_carries_the_documented_fields_and_plain_headers(serve: Serve, client: ClientOf) -> None:
    server = serve(saying(http(GRANT)))
    assert exchange(client(f"{server.url}/tenant")).access_token == "a-token"
    [request] = server.seen
    body = request.partition(b"\r\n\r\n")[2]
    assert request.startswith(b"POST /tenant/api/oauth2/Token HTTP/1.1\r\n")
    assert server.headers() == {
        "Host": server.url.removeprefix("http://"),
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": USER_AGENT,
        "Content-Length": str(len(body)),
        "Content-Type": "application/x-www-form-urlencoded",
    }
    assert dict(parse_qsl(body.decode(), strict_parsing=True)) == {
        "code": CODE,
        "client_id": "client-1",
        "client_secret": SECRET,
        "redirect_uri": REDIRECT_URI,
        "userid": "user_42",
    }


def test_without_a_userid_none_is_sent_and_extras_are(serve: Serve, client: ClientOf) -> None:
    server = serve(saying(http(GRANT)))
    extra = {"grant_type": "authorization_code"}
    exchange(client(server.url, TOKEN_PATH="/token", EXTRA_TOKEN_PARAMS=extra), userid=None)
    assert server.seen[0].startswith(b"POST /token HTTP/1.1\r\n")
    sent = dict(parse_qsl(server.seen[0].partition(b"\r\n\r\n")[2].decode()))
    assert sent.keys() == {"code", "client_id", "client_secret", "redirect_uri", "grant_type"}


def test_the_authorization_request_carries_the_documented_parameters_and_no_secret(
    serve: Serve, client: ClientOf
) -> None:
    server = serve(saying(http(b"", "401 Unauthorized")))
    failure(authorize, client(server.url, EXTRA_AUTHORIZE_PARAMS={"response_type": "code"}))
    line = server.seen[0].partition(b"\r\n")[0].decode()
    path, _, query = line.removeprefix("GET ").removesuffix(" HTTP/1.1").partition("?")
    assert path == "/api/oauth2"
    assert dict(parse_qsl(query)) == {
        "response_type": "code",
        "client_id": "client-1",
        "redirect_uri": REDIRECT_URI,
        "state": STATE,
        "userid": "user_42",
    }
    assert server.headers().keys() == {"Host", "Accept", "Accept-Encoding", "User-Agent"}


def test_a_code_is_brought_back_from_the_redirect(serve: Serve, client: ClientOf) -> None:
    location = f"Location: {REDIRECT_URI}?code=c%2B1&state=canary-state%2F%2B%3D%26"
    server = serve(saying(http(b"<html>", "302 Found", location)))
    assert authorize(client(server.url)) == "c+1"


def test_cookies_are_never_sent_back(serve: Serve, client: ClientOf) -> None:
    cookies = ("Set-Cookie: ARRAffinity=1; Path=/", "Set-Cookie: session=2")
    server = serve(saying(http(GRANT, "200 OK", *cookies)))
    airisk = client(server.url)
    for _ in range(3):
        exchange(airisk)
    assert [server.headers(number).get("Cookie") for number in range(3)] == [None] * 3


@both
def test_a_hostile_netrc_changes_no_header(
    serve: Serve, client: ClientOf, call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (".netrc", "_netrc"):
        (tmp_path / name).write_text("machine 127.0.0.1 login evil password evil\ndefault login evil password evil\n")
        (tmp_path / name).chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    server = serve(saying(http(b"", "400 Bad Request")))
    failure(call, client(server.url))
    assert "Authorization" not in server.headers()


# What the environment says


def test_the_proxy_of_the_environment_is_used_and_cannot_stretch_the_deadline(
    serve: Serve, client: ClientOf, settings: "Settings", monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.DEBUG = True
    proxy = serve(saying(http(GRANT)))
    monkeypatch.setenv("http_proxy", proxy.url)
    airisk = client("http://airisk.invalid/tenant")
    monkeypatch.delenv("http_proxy")
    assert exchange(airisk).access_token == "a-token"
    assert proxy.seen[0].startswith(b"POST http://airisk.invalid/tenant/api/oauth2/Token HTTP/1.1\r\n")
    proxy.script = dripping(b"HTTP/1.1 200 OK\r\n", b"X: x")
    monkeypatch.setenv("http_proxy", proxy.url)
    failure(exchange, client("http://airisk.invalid", TIMEOUT=(0.3, 0.3)))


def test_a_proxy_that_drips_its_answer_to_connect_is_left_in_time(
    serve: Serve, client: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = serve(dripping(b"HTTP/1.1 200 ", b"O"))
    monkeypatch.setenv("https_proxy", proxy.url)
    failure(exchange, client("https://airisk.invalid", TIMEOUT=(0.3, 0.3)))
    assert proxy.seen[0].startswith(b"CONNECT airisk.invalid:443 HTTP/1.")
    assert b"client" not in proxy.seen[0]


def test_an_exception_from_the_proxy_is_honoured(
    serve: Serve, client: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, proxy = serve(saying(http(GRANT))), serve(saying(http(GRANT)))
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    exchange(client(server.url))
    assert (len(server.seen), len(proxy.seen)) == (1, 0)


@pytest.fixture
def certificate(tmp_path: Path) -> Callable[..., tuple[ssl.SSLContext, str]]:
    """Make self-signed certificates: for a server, and the bundle that would trust it."""

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


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_certificate_is_trusted_through_the_environments_bundle_only(
    serve: Serve, client: ClientOf, certificate: Certificate, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    context, bundle = certificate("127.0.0.1")
    server = serve(saying(http(GRANT)), context)
    for trusted in (None, ""):
        if trusted is not None:
            monkeypatch.setenv(variable, trusted)
        assert isinstance(failure(exchange, client(server.url)), AIRiskUnavailable)
        assert server.seen == []
    monkeypatch.setenv(variable, bundle)
    assert exchange(client(server.url)).access_token == "a-token"


@pytest.mark.django_db
@pytest.mark.parametrize("fault", ["of nobody's making", "of another host", "ended"])
def test_a_certificate_that_proves_nothing_gets_no_code_no_secret_and_no_token(
    serve: Serve, client: ClientOf, certificate: Certificate, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    host = "demo.aicrisk.com" if fault == "of another host" else "127.0.0.1"
    context, bundle = certificate(host, ends_in=timedelta(minutes=-1 if fault == "ended" else 1))
    server = serve(saying(http(GRANT)), context)
    if fault != "of nobody's making":
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", bundle)
    for call in (authorize, exchange):
        assert isinstance(failure(call, client(server.url)), AIRiskUnavailable)
    give_token(None)
    with AIRiskSession.for_application() as session, pytest.raises(AIRiskUnavailable):
        session.get("/api/Chat/ListAgents")
    assert server.seen == []


@pytest.mark.parametrize("is_directory", [False, True])
def test_a_bundle_that_is_not_there_or_empty_trusts_nobody(
    serve: Serve,
    client: ClientOf,
    certificate: Certificate,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    is_directory: bool,
) -> None:
    context, bundle = certificate("127.0.0.1")
    server = serve(saying(http(GRANT)), context)
    empty = tmp_path / "certificates"
    empty.mkdir()
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(empty) if is_directory else f"{bundle}.gone")
    assert isinstance(failure(exchange, client(server.url)), AIRiskUnavailable)
    assert server.seen == []


def test_a_drip_through_tls_is_over_in_time(
    serve: Serve, client: ClientOf, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, bundle = certificate("127.0.0.1")
    server = serve(dripping(b"HTTP/1.1 200 OK\r\nX: ", b"x"), context)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", bundle)
    assert isinstance(failure(exchange, client(server.url, TIMEOUT=(0.3, 0.3))), AIRiskUnavailable)
    assert len(server.seen) == 1


# Redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_from_the_token_endpoint_is_not_followed(serve: Serve, client: ClientOf, status: int) -> None:
    other = serve(saying(http(GRANT)))
    server = serve(saying(http(GRANT, f"{status} Moved", f"Location: {other.url}/api/oauth2/Token")))
    error = failure(exchange, client(server.url))
    assert isinstance(error, AIRiskInvalidResponse)
    assert str(status) in str(error)
    server.script = saying(http(b"", f"{status} Moved", "Location: /api/oauth2/Token"))
    failure(exchange, client(server.url))
    assert (len(server.seen), other.seen) == (2, [])


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_of_the_authorization_elsewhere_asks_for_a_person(
    serve: Serve, client: ClientOf, status: int
) -> None:
    other = serve(saying(http()))
    server = serve(saying(http(b"", f"{status} Moved", f"Location: {other.url}/login")))
    assert isinstance(failure(authorize, client(server.url)), PageShown)
    assert (len(server.seen), other.seen) == (1, [])


@both
@pytest.mark.parametrize("location", ["http://[", "//", "\xff\xfe", "http://a:b/", "https://*.example/", "x" * 60_000])
def test_a_location_that_nobody_can_read_is_our_error(serve: Serve, client: ClientOf, call: Any, location: str) -> None:
    server = serve(saying(http(b"", "302 Found", f"Location: {location}")))
    failure(call, client(server.url))


# What comes back, and never in time or form

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
HALF_A_TOKEN = b'{"access_token": "canary-token'


@both
@pytest.mark.parametrize(
    "script",
    [
        silent,
        dripping(b"", b"H"),
        dripping(b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        dripping(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n" + HALF_A_TOKEN, b" "),
        dripping(b"HTTP/1.1 200 OK\r\n\r\n" + HALF_A_TOKEN, b" "),
        dripping(b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n" + HALF_A_TOKEN, b" "),
        dripping(CHUNKED + b"1e\r\n" + HALF_A_TOKEN + b"\r\n", b"1\r\n \r\n"),
        dripping(CHUNKED, b"0"),
    ],
    ids=["silence", "status", "header", "headers", "100", "body", "open-body", "redirect", "chunks", "chunk-size"],
)
def test_a_server_that_takes_its_time_is_left_at_the_deadline(
    serve: Serve, client: ClientOf, call: Any, script: Script
) -> None:
    server = serve(script)
    assert isinstance(failure(call, client(server.url, TIMEOUT=(0.1, 0.15))), AIRiskUnavailable)
    # None at all where the machine was too slow.
    assert len(server.seen) <= 1


def test_a_server_that_falls_silent_late_gets_no_time_on_top(serve: Serve, client: ClientOf) -> None:
    def script(sock: socket.socket) -> None:
        time.sleep(0.6)
        sock.sendall(b"HTTP/1.1 200 OK\r\n")
        silent(sock)

    assert_is_left_within(1.3, client(serve(script).url, TIMEOUT=(0.8, 0.8)))


BOMB = gzip.compress(b'{"access_token": "canary-token", "x": "' + b"x" * 30_000_000)
ENDLESS = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"


@pytest.mark.parametrize(
    ("call", "status"),
    [(exchange, "200 OK"), (exchange, "302 Found"), (exchange, "400 Bad Request"), (authorize, "302 Found")],
)
@pytest.mark.parametrize(
    ("headers", "script"),
    [
        (["Content-Encoding: gzip", f"Content-Length: {len(BOMB)}"], lambda start: saying(start, BOMB)),
        (["Content-Encoding: gzip"], lambda start: saying(start, BOMB)),
        (["Transfer-Encoding: chunked"], lambda start: flooding(start, ENDLESS)),
        (["Content-Length: 99999999"], lambda start: flooding(start, ENDLESS)),
        ([], lambda start: flooding(start, ENDLESS)),
    ],
    ids=["bomb", "open-bomb", "chunks", "length", "open"],
)
def test_a_body_is_read_up_to_64_kib_and_no_further(
    serve: Serve, client: ClientOf, call: Any, status: str, headers: list[str], script: Callable[[bytes], Script]
) -> None:
    start = "\r\n".join([f"HTTP/1.1 {status}", "Location: /", *headers, "", ""]).encode()
    airisk = client(serve(script(start)).url)
    tracemalloc.start()
    try:
        assert isinstance(failure(call, airisk), AIRiskInvalidResponse)
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("length", [64 * 1024, 64 * 1024 + 1])
def test_a_body_of_64_kib_is_the_longest(serve: Serve, client: ClientOf, length: int) -> None:
    airisk = client(serve(saying(http(GRANT + b" " * (length - len(GRANT))))).url)
    if length == 64 * 1024:
        assert exchange(airisk).access_token == "a-token"
    else:
        assert isinstance(failure(exchange, airisk), AIRiskInvalidResponse)


@both
@pytest.mark.parametrize(
    "script",
    [
        saying(),
        reset,
        saying(b"SSH-2.0-OpenSSH_9.6\r\n"),
        saying(b"\x16\x03\x01\x00\xff" * 20),
        saying(b"\n\n\n\n"),
        saying(b"HTTP/1.1 banana\r\n\r\n"),
        saying(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000 + b"\r\n"),
        saying(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300_000 + b"\r\n\r\n"),
        saying(http(HALF_A_TOKEN).replace(b"Content-Length: 30", b"Content-Length: 31")),
        saying(CHUNKED + b"1e\r\n" + HALF_A_TOKEN),
        saying(CHUNKED + b"banana\r\n" + HALF_A_TOKEN),
        saying(http(HALF_A_TOKEN, "200 OK", "Content-Encoding: gzip")),
    ],
    ids=[
        "nothing",
        "reset",
        "ssh",
        "tls",
        "newlines",
        "status",
        "headers",
        "header",
        "short-body",
        "short-chunk",
        "odd-chunk",
        "no-gzip",
    ],
)
def test_an_answer_that_is_no_http_or_breaks_off_is_unavailable(
    serve: Serve, client: ClientOf, call: Any, script: Script
) -> None:
    server = serve(script)
    assert isinstance(failure(call, client(server.url)), AIRiskUnavailable)
    assert len(server.seen) == 1


@pytest.mark.parametrize("length", ["7", "banana", "-1", "9" * 30])
def test_a_wrong_content_length_is_our_error_and_shows_nothing(serve: Serve, client: ClientOf, length: str) -> None:
    raw = f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n".encode() + HALF_A_TOKEN
    failure(exchange, client(serve(saying(raw)).url))


@both
def test_a_host_that_no_resolver_takes_is_unavailable(client: ClientOf, call: Any) -> None:
    assert isinstance(failure(call, client(f"https://{'a' * 70}.example")), AIRiskUnavailable)


@both
def test_a_refused_connection_is_unavailable(client: ClientOf, call: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert isinstance(failure(call, client(f"http://127.0.0.1:{port}")), AIRiskUnavailable)


@both
def test_plain_http_where_tls_was_expected_is_unavailable(serve: Serve, client: ClientOf, call: Any) -> None:
    server = serve(saying(http(GRANT)))
    airisk = client(server.url.replace("http:", "https:"), TIMEOUT=(0.1, 0.2))
    assert isinstance(failure(call, airisk), AIRiskUnavailable)


@both
@pytest.mark.parametrize(
    ("status", "header", "seconds"),
    [
        ("500 Oops", "X: y", None),
        ("503 Busy", "Retry-After: 17", 17),
        ("429 Slow down", "Retry-After: 7200", 60),
        ("502 Oops", "Retry-After: Wed, 21 Oct 2015 07:28:00 GMT", None),
    ],
)
def test_an_outage_says_how_long_to_wait(
    serve: Serve, client: ClientOf, call: Any, status: str, header: str, seconds: int | None
) -> None:
    body = b'{"title": "canary-token"}'
    error = failure(call, client(serve(saying(http(body, status, header))).url))
    assert isinstance(error, AIRiskUnavailable)
    assert error.retry_after == seconds


def test_a_refusal_tells_its_reason_and_trace_but_nothing_that_was_sent(serve: Serve, client: ClientOf) -> None:
    problem = {"title": "Unauthorized", "traceId": "00-1", "detail": f"{CODE} {SECRET}"}
    plain = "Content-Type: application/problem+json"
    server = serve(saying(http(json.dumps(problem).encode(), "401 Unauthorized", plain)))
    error = failure(exchange, client(server.url))
    assert isinstance(error, AIRiskRefused)
    assert (error.status, error.reason, error.trace_id) == (401, "Unauthorized", "00-1")
    server.script = saying(http(b"Invalid Code", "400 Bad Request", "Content-Type: Text/Plain"))
    with pytest.raises(AIRiskRefused, match="status 400: Invalid Code"):
        exchange(client(server.url))
    for echo in (CODE, SECRET):
        server.script = saying(http(f"Invalid {echo}".encode(), "400 Bad Request", "Content-Type: Text/Plain"))
        error = failure(exchange, client(server.url))
        assert isinstance(error, AIRiskRefused)
        assert (error.status, error.reason) == (400, "")


@pytest.mark.parametrize(
    "members",
    [
        {"access_token": "canary token"},
        {"access_token": ["canary-token"]},
        {"access_token": "canary-token", "expires_in": -1},
        {"access_token": "canary-token", "expiration": "tomorrow"},
        {"access_token": "canary-token", "refresh_token": "canary-token", "expires_in": -1},
    ],
    ids=str,
)
def test_an_unusable_token_shows_in_no_traceback(serve: Serve, client: ClientOf, members: Any) -> None:
    server = serve(saying(http(json.dumps(members).encode())))
    assert isinstance(failure(exchange, client(server.url)), AIRiskInvalidResponse)


# One clock for all calls of a flow


def test_a_flow_has_one_deadline_for_all_its_calls_and_the_next_one_has_its_own(serve: Serve, client: ClientOf) -> None:
    def script(sock: socket.socket) -> None:
        time.sleep(0.6 if len(server.seen) <= 2 else 0)
        sock.sendall(http(GRANT))

    def exchange_twice(client: AnyClient) -> Any:
        def calls() -> Calls[Any]:
            yield from flow.exchange(client.deployment, CODE, userid=None)
            yield from flow.exchange(client.deployment, CODE, userid=None)

        return client.run(calls())

    server = serve(script)
    airisk = client(server.url, TIMEOUT=(1, 1))
    assert isinstance(failure(exchange_twice, airisk), AIRiskUnavailable)
    assert exchange(airisk).access_token == "a-token"


def test_a_connection_is_used_again_and_closed_with_the_client(serve: Serve, client: ClientOf) -> None:
    def script(sock: socket.socket) -> None:
        answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(GRANT)}\r\n\r\n".encode() + GRANT
        sock.sendall(answer)
        assert read_request(sock).startswith(b"POST ")
        sock.sendall(answer)
        closed.append(sock.recv(1) == b"")

    closed: list[bool] = []
    server = serve(script)
    with client(server.url) as airisk:
        assert [exchange(airisk).access_token for _ in range(2)] == ["a-token"] * 2
    server.stop()
    assert (len(server.seen), closed) == (1, [True])


def test_a_name_that_takes_long_to_resolve_does_not_give_the_server_more_time(
    serve: Serve, client: ClientOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo

    def slowly(*args: Any, **kwargs: Any) -> Any:
        time.sleep(0.3)
        return resolve(*args, **kwargs)

    server = serve(dripping(b"HTTP/1.1 200 OK\r\nX: ", b"x"))
    monkeypatch.setattr(socket, "getaddrinfo", slowly)
    assert_is_left_within(0.5, client(server.url, TIMEOUT=(0.25, 0.25)))
