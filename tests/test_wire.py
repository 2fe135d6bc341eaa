"""Calls of the API where servers, gateways and callers do their worst; both sides alike."""

import asyncio
import gzip
import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import httpx2
import pytest
import requests
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User

from airisk_oauth import AIRiskAuth, AIRiskSession, AsyncAIRiskClient
from airisk_oauth.exceptions import AIRiskUnavailable
from airisk_oauth.wire.adapter import TimedAdapter
from airisk_oauth.wire.async_environment import EnvironmentTransport
from tests.support.options import set_option
from tests.support.people import give_token
from tests.support.wire import (
    TOO_LONG,
    Script,
    Serve,
    Server,
    dripping,
    flooding,
    http,
    read_request,
    reset,
    saying,
    silent,
)

pytestmark = [pytest.mark.django_db, pytest.mark.once, pytest.mark.usefixtures("nothing_in_the_environment")]

CHUNKED = "Transfer-Encoding: chunked"
ENDLESS = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
BOMB = gzip.compress(bytes(50_000_000))


def plain(body: bytes = b"[]", status: str = "200 OK", *headers: str) -> bytes:
    """An answer after which the connection stays open."""
    return http(body, status, *headers).replace(b"Connection: close\r\n", b"")


class AIRisk:
    """Grants a token, answers 401 to every other one, and else does as the script of a path says."""

    def __init__(self, serve: Serve, settings: Any) -> None:
        self.scripts: dict[str, Script] = {}
        self.requests: list[bytes] = []
        #: What becomes of a connection that is used again.
        self.dies: Script | None = None
        self.refused: Script = saying(plain(b"", "401 Unauthorized"))
        self.server: Server = serve(self._script)
        set_option(settings, BASE_URL=self.server.url)

    def paths(self) -> list[str]:
        return [request.split()[1].decode().partition("?")[0] for request in self.requests]

    def _script(self, sock: socket.socket) -> None:
        request = self.server.seen[-1]
        while request:
            self.requests.append(request)
            self._answer(request)(sock)
            request = read_request(sock)
            if request and self.dies is not None:
                self.requests.append(request)
                return self.dies(sock)
        return None

    def _answer(self, request: bytes) -> Script:
        path, _, query = request.split()[1].decode().partition("?")
        if path == "/api/oauth2":
            back = urlencode({"code": "code", "state": re.search("state=([^&]+)", query)[1]})  # type: ignore[index]
            location = f"Location: https://app.example.com/airisk/callback/?{back}"
            return saying(plain(b"", "302 Found", location))
        if path == "/api/oauth2/Token":
            return saying(plain(b'{"access_token": "renewed"}'))
        if b"Bearer refused" in request:
            return self.refused
        return self.scripts.get(path, saying(plain()))


@pytest.fixture
def airisk(serve: Serve, settings: Any) -> AIRisk:
    return AIRisk(serve, settings)


Ask = Callable[..., Any]


def ask_blocking(user: User, method: str, path: str, *, follow: bool = False, **options: Any) -> requests.Response:
    with AIRiskSession.for_user(user) as session:
        return session.request(method, path, allow_redirects=follow, **options)


def ask_on_a_loop(user: User, method: str, path: str, *, follow: bool = False, **options: Any) -> httpx2.Response:
    @async_to_sync
    async def main() -> httpx2.Response:
        async with AsyncAIRiskClient.for_user(user) as client:
            return await client.request(method, path, follow_redirects=follow, **options)

    return main()


both = pytest.mark.parametrize("ask", [ask_blocking, ask_on_a_loop])


def unavailable(work: Callable[[], Any]) -> str:
    """The words of the error that this ends with, in time."""
    began = time.monotonic()
    with pytest.raises(AIRiskUnavailable) as caught:
        work()
    assert time.monotonic() - began < TOO_LONG / 2
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return str(caught.value)


# Headers in time, and bodies that take theirs


@both
@pytest.mark.parametrize(
    "script",
    [
        dripping(b"", b"H"),
        dripping(b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        dripping(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    ],
    ids=["status", "header", "100", "103"],
)
def test_dripping_headers_run_into_the_timeout(
    airisk: AIRisk, mia: User, settings: Any, ask: Ask, script: Script
) -> None:
    give_token(mia)
    set_option(settings, API_TIMEOUT=(1, 0.3))
    airisk.scripts["/api/x"] = script
    assert "ReadTimeout" in unavailable(lambda: ask(mia, "GET", "/api/x"))


@both
def test_body_may_take_longer_than_headers(airisk: AIRisk, mia: User, settings: Any, ask: Ask) -> None:
    give_token(mia)
    set_option(settings, API_TIMEOUT=(1, 0.5))

    def slowly(sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n")
        for _part in range(8):
            time.sleep(0.1)
            sock.sendall(b"x")

    airisk.scripts["/api/x"] = slowly
    assert ask(mia, "GET", "/api/x").content == b"x" * 8


def test_silent_stream_raises_the_library_s_error(airisk: AIRisk, mia: User, settings: Any) -> None:
    give_token(mia)
    set_option(settings, API_TIMEOUT=(1, 0.2))

    def silently(sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nx")
        read_request(sock)

    @async_to_sync
    async def on_a_loop() -> None:
        async with AsyncAIRiskClient.for_user(mia) as client, client.stream("GET", "/api/x") as response:
            with pytest.raises(httpx2.ReadTimeout):
                await response.aread()

    airisk.scripts["/api/x"] = silently
    with (
        AIRiskSession.for_user(mia) as session,
        session.get("/api/x", stream=True) as response,
        pytest.raises(requests.ConnectionError),
    ):
        list(response.iter_content())
    on_a_loop()


@both
def test_interim_response_is_skipped(airisk: AIRisk, mia: User, ask: Ask) -> None:
    give_token(mia)
    airisk.scripts["/api/x"] = saying(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", plain(b"first"))
    assert ask(mia, "GET", "/api/x").content == b"first"
    with AIRiskSession.for_user(mia) as session:
        assert [session.get(path).content for path in ("/api/x", "/api/y")] == [b"first", b"[]"]


# Connections that have gone stale


def calls_in_a_row(ask: Ask, user: User, *calls: tuple[str, str]) -> list[int]:
    """The statuses of calls of one session."""

    @async_to_sync
    async def on_a_loop() -> list[int]:
        async with AsyncAIRiskClient.for_user(user) as client:
            return [(await client.request(*each)).status_code for each in calls]

    if ask is ask_on_a_loop:
        return on_a_loop()
    with AIRiskSession.for_user(user) as session:
        return [session.request(*each).status_code for each in calls]


@both
@pytest.mark.parametrize("dying", [saying(), reset], ids=["close", "reset"])
def test_stale_connection_fails_only_writes(airisk: AIRisk, mia: User, ask: Ask, dying: Script) -> None:
    give_token(mia)
    airisk.dies = dying
    assert calls_in_a_row(ask, mia, ("GET", "/api/x"), ("GET", "/api/y"), ("HEAD", "/api/z")) == [200] * 3
    assert airisk.paths() == ["/api/x", "/api/y", "/api/y", "/api/z", "/api/z"]
    for method in ("POST", "DELETE"):
        unavailable(lambda method=method: calls_in_a_row(ask, mia, ("GET", "/api/x"), (method, "/api/w")))  # type: ignore[misc]
    assert airisk.paths().count("/api/w") == 2


@both
def test_lost_new_connection_is_not_retried(airisk: AIRisk, mia: User, ask: Ask) -> None:
    give_token(mia)
    airisk.scripts["/api/x"] = lambda sock: sock.shutdown(socket.SHUT_RDWR)
    unavailable(lambda: ask(mia, "GET", "/api/x"))
    assert airisk.paths() == ["/api/x"]


# Uploads


def reading(sock: socket.socket, length: int, pause: Callable[[int], None]) -> None:
    for number in range(length // 500_000):
        pause(number)
        left = 500_000
        while left:
            left -= len(sock.recv(min(left, 65536)))


@both
@pytest.mark.parametrize(
    "pause",
    [lambda number: time.sleep(0.8 if number == 1 else 0), lambda _number: time.sleep(0.06)],
    ids=["once", "all the time"],
)
def test_upload_survives_a_pausing_receiver(
    serve: Serve, mia: User, settings: Any, ask: Ask, pause: Callable[[int], None]
) -> None:
    """Longer at once than connecting may take, or in all than the read timeout."""
    length = 15_000_000

    def receive(sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(1)
        reading(sock, length, pause)
        sock.sendall(http(b"[]"))

    server = serve(receive)
    server.greeting = 1
    set_option(settings, BASE_URL=server.url, API_TIMEOUT=(0.3, 1.5))
    give_token(mia)
    assert ask(mia, "POST", "/api/Upload", **body_of(ask, bytes(length))).status_code == 200


def body_of(ask: Ask, body: bytes) -> dict[str, bytes]:
    return {"data" if ask is ask_blocking else "content": body}


class Pipe(io.RawIOBase):
    """A file that is read once."""

    def __init__(self) -> None:
        self._parts = [b"hello"]

    def readable(self) -> bool:
        return True

    def read(self, _size: int | None = -1) -> bytes:
        return self._parts.pop() if self._parts else b""


class Bare:
    """What can be read and no more."""

    def read(self, _size: int = -1) -> bytes:
        return b""


def closed_file() -> io.BytesIO:
    file = io.BytesIO(b"hello")
    file.seekable = lambda: (_ for _ in ()).throw(ValueError)  # type: ignore[method-assign]
    return file


@both
@pytest.mark.parametrize(
    "file", [lambda: b"hello", lambda: "hello", lambda: io.BytesIO(b"hello")], ids=["b", "s", "file"]
)
def test_uploaded_files_are_sent_again(airisk: AIRisk, mia: User, ask: Ask, file: Callable[[], Any]) -> None:
    give_token(mia, access_token="refused")
    answer = ask(mia, "POST", "/api/Upload", data={"title": "A plan"}, files={"file": ("a.txt", file())})
    assert answer.status_code == 200
    uploads = [each.partition(b"\r\n\r\n")[2] for each in airisk.requests if each.startswith(b"POST /api/Upload")]
    assert uploads[0] == uploads[1]
    assert b"hello" in uploads[0]


@pytest.mark.parametrize("file", [Pipe, Bare, closed_file])
def test_unrepeatable_upload_stays_refused(airisk: AIRisk, mia: User, file: Callable[[], Any]) -> None:
    def refuse(sock: socket.socket) -> None:
        sock.sendall(http(b"", "401 Unauthorized"))
        # Its chunks, which would reset the connection if they came later.
        sock.settimeout(0.3)
        with suppress(TimeoutError):
            while sock.recv(65536):
                pass

    give_token(mia, access_token="refused")
    airisk.refused = refuse
    assert ask_on_a_loop(mia, "POST", "/api/Upload", files={"file": ("a.txt", file())}).status_code == 401
    assert airisk.paths().count("/api/Upload") == 1


# What nobody reads


@contextmanager
def little_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


UNREAD = {
    "short": lambda status, *more: saying(plain(b"x" * 1000, status, *more)),
    "endless": lambda status, *more: flooding(head(status, CHUNKED, *more), ENDLESS),
    "bomb": lambda status, *more: saying(plain(BOMB, status, "Content-Encoding: gzip", *more)),
    "drip": lambda status, *more: dripping(head(status, "Content-Length: 9999", *more), b"x"),
}


def head(status: str, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode()


@both
@pytest.mark.parametrize("body", UNREAD)
def test_body_of_a_redirect_is_discarded(airisk: AIRisk, mia: User, ask: Ask, body: str) -> None:
    give_token(mia)
    airisk.scripts["/api/x"] = UNREAD[body]("302 Found", "Location: /api/y")
    airisk.scripts["/api/y"] = UNREAD[body]("302 Found", "Location: /api/z")
    with little_memory():
        answer = ask(mia, "GET", "/api/x", follow=True)
    assert (answer.status_code, answer.content) == (200, b"[]")
    assert airisk.paths() == ["/api/x", "/api/y", "/api/z"]
    assert [each.content for each in answer.history] == [b"", b""]


@both
@pytest.mark.parametrize("body", UNREAD)
def test_body_of_a_refusal_is_discarded(airisk: AIRisk, mia: User, ask: Ask, body: str) -> None:
    give_token(mia, access_token="refused")
    airisk.refused = UNREAD[body]("401 Unauthorized")
    with little_memory():
        assert ask(mia, "GET", "/api/x").status_code == 200


def test_unfollowed_redirect_keeps_its_body(airisk: AIRisk, mia: User) -> None:
    give_token(mia)
    airisk.scripts["/api/x"] = saying(plain(b"moved", "302 Found", "Location: /api/y"))
    with AIRiskSession.for_user(mia) as session, session.get("/api/x", stream=True, allow_redirects=False) as answer:
        assert answer.next is not None
        assert answer.next.url == f"{airisk.server.url}/api/y"
        assert answer.raw.read() == b"moved"


@both
def test_redirect_to_invalid_utf_8_is_returned(airisk: AIRisk, mia: User, ask: Ask) -> None:
    give_token(mia)
    airisk.scripts["/api/x"] = saying(plain(b"moved", "302 Found", "Location: /api/\xff\xfe"))
    assert ask(mia, "GET", "/api/x", follow=ask is ask_blocking).status_code == 302


def test_own_session_closes_unknown_connections(airisk: AIRisk, mia: User) -> None:
    give_token(mia, access_token="refused")
    with requests.Session() as session:
        assert session.get(f"{airisk.server.url}/api/x", auth=AIRiskAuth.for_user(mia), timeout=5).status_code == 200


# Errors and timeouts


@both
def test_missing_ca_bundle_is_named(mia: User, settings: Any, monkeypatch: pytest.MonkeyPatch, ask: Ask) -> None:
    set_option(settings, BASE_URL="https://127.0.0.1:9")
    give_token(mia)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/bundle.pem")
    assert "(BundleMissing: the CA certificate bundle that" in unavailable(lambda: ask(mia, "GET", "/api/x"))


@both
def test_unusable_proxy_is_named(mia: User, settings: Any, monkeypatch: pytest.MonkeyPatch, ask: Ask) -> None:
    set_option(settings, BASE_URL="https://127.0.0.1:9")
    give_token(mia)
    monkeypatch.setenv("https_proxy", "socks://127.0.0.1:9")
    assert "(ProxyUnusable: the environment names" in unavailable(lambda: ask(mia, "GET", "/api/x"))


@both
def test_impossible_host_name_is_unavailable(mia: User, settings: Any, ask: Ask) -> None:
    set_option(settings, BASE_URL=f"https://{'a' * 70}.example")
    give_token(mia)
    unavailable(lambda: ask(mia, "GET", "/api/x"))


@both
def test_body_that_breaks_off_is_unavailable(airisk: AIRisk, mia: User, ask: Ask) -> None:
    def break_off(sock: socket.socket) -> None:
        sock.sendall(head("200 OK", "Content-Length: 9"))
        sock.shutdown(socket.SHUT_RDWR)

    give_token(mia)
    airisk.scripts["/api/x"] = break_off
    unavailable(lambda: ask(mia, "GET", "/api/x"))


@both
def test_timeout_none_means_the_deployments(airisk: AIRisk, mia: User, settings: Any, ask: Ask) -> None:
    give_token(mia)
    set_option(settings, API_TIMEOUT=(1, 0.2))
    airisk.scripts["/api/x"] = silent
    assert "ReadTimeout" in unavailable(lambda: ask(mia, "GET", "/api/x", timeout=None))


@pytest.mark.parametrize(("ask", "endless"), [(ask_blocking, (None, None)), (ask_on_a_loop, httpx2.Timeout(None))])
def test_timeout_can_be_switched_off(airisk: AIRisk, mia: User, settings: Any, ask: Ask, endless: Any) -> None:
    give_token(mia)
    set_option(settings, API_TIMEOUT=(1, 0.1))

    def late(sock: socket.socket) -> None:
        time.sleep(0.3)
        sock.sendall(plain())

    airisk.scripts["/api/x"] = late
    assert ask(mia, "GET", "/api/x", timeout=endless).status_code == 200


def test_repeated_call_has_elapsed_time(airisk: AIRisk, mia: User) -> None:
    give_token(mia, access_token="refused")
    assert ask_blocking(mia, "GET", "/api/x").elapsed > timedelta(0)


class Limit(TimeoutError):
    """What a site's handler of SIGALRM raises."""


@pytest.fixture
def strike() -> Iterator[Callable[[], None]]:
    def handle(*_args: object) -> None:
        raise Limit

    before = signal.signal(signal.SIGALRM, handle)
    yield lambda: os.kill(os.getpid(), signal.SIGALRM)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("start", [b"", head("200 OK", "Content-Length: 9")], ids=["headers", "body"])
def test_time_limit_of_the_site_is_raised(airisk: AIRisk, mia: User, strike: Callable[[], None], start: bytes) -> None:
    def script(sock: socket.socket) -> None:
        sock.sendall(start)
        time.sleep(0.05)
        strike()
        read_request(sock)

    give_token(mia)
    airisk.scripts["/api/x"] = script
    with pytest.raises(Limit):
        ask_blocking(mia, "GET", "/api/x")


def test_time_limit_is_raised_while_discarding(airisk: AIRisk, mia: User, strike: Callable[[], None]) -> None:
    def refuse(sock: socket.socket) -> None:
        sock.sendall(head("302 Found", "Location: /api/y", "Content-Length: 9"))
        time.sleep(0.1)
        strike()
        read_request(sock)

    give_token(mia)
    airisk.scripts["/api/x"] = refuse
    with pytest.raises(Limit):
        ask_blocking(mia, "GET", "/api/x", follow=True)


def test_time_limit_is_raised_on_a_loop(airisk: AIRisk, mia: User, strike: Callable[[], None]) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"one"
        strike()
        await asyncio.sleep(0)

    give_token(mia)
    client = AsyncAIRiskClient.for_user(mia, keep_alive=False)
    # It has its token by now, and the database is another thread's.
    async_to_sync(client.get)("/api/x")
    with pytest.raises(Limit):
        asyncio.run(client.post("/api/x", content=parts()))


# Around a call


def test_trace_of_the_caller_is_called_too(airisk: AIRisk, mia: User) -> None:
    events: list[str] = []

    async def trace(event: str, _info: Any) -> None:
        events.append(event)

    give_token(mia)
    ask_on_a_loop(mia, "GET", "/api/x", extensions={"trace": trace})
    assert "http11.receive_response_headers.complete" in events


def test_winding_down_waits_for_open_streams(airisk: AIRisk, mia: User) -> None:
    @async_to_sync
    async def main() -> bytes:
        async with AsyncAIRiskClient.for_user(mia) as client:
            async with client.stream("GET", "/api/x") as response:
                await client.wind_down()
                body = await response.aread()
            await response.stream.aclose()  # type: ignore[union-attr]
            assert client._environment_transport._inner is None
            return body

    give_token(mia)
    assert main() == b"[]"


# Processes

FORKED = """
import asyncio, os, sys
import requests
from airisk_oauth.adapter import TimedAdapter
session = requests.Session()
session.mount("http://", TimedAdapter())
ask = lambda: session.get(sys.argv[1], timeout=10).text
before = ask()
child = os.fork()
if not child:
    os._exit(0 if ask() == before else 1)
assert os.waitpid(child, 0)[1] == 0
assert ask() == before
"""


def test_forked_process_has_its_own_connections(serve: Serve) -> None:
    """As prefork servers and multiprocessing do it."""
    connections: list[int] = []

    def script(sock: socket.socket) -> None:
        connections.append(len(connections))
        sock.sendall(plain())
        while read_request(sock):
            sock.sendall(plain())

    url = serve(script).url
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORKED, url], check=True, timeout=60)
    assert len(connections) == 2


@async_to_sync
async def inherited(transport: EnvironmentTransport, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask() -> None:
        response = await transport.handle_async_request(httpx2.Request("GET", url))
        await response.aread()

    await ask()
    parent = transport._inner
    monkeypatch.setattr(os, "getpid", lambda: -1)
    await ask()
    assert transport._inner is not parent
    assert parent is not None
    await parent.aclose()
    await transport.aclose()


def test_inherited_connections_are_dropped(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(saying(http(b"[]")))
    with requests.Session() as session:
        session.mount("http://", TimedAdapter())
        session.get(server.url, timeout=5)
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: -1)
            session.get(server.url, timeout=5)
    inherited(EnvironmentTransport(server.url), server.url, monkeypatch)
    assert len(server.seen) == 4
