"""Calls of the API over misbehaving connections: slow headers, stale connections, uploads, forks."""

import io
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx2
import pytest
import requests
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User

from airisk_oauth import AIRiskSession, AsyncAIRiskClient
from airisk_oauth.wire.adapter import TimedAdapter
from airisk_oauth.wire.async_environment import EnvironmentTransport
from tests.support.options import set_option
from tests.support.people import give_token
from tests.support.scripted import Ask, ScriptedAIRisk, ask_blocking, ask_on_a_loop, both, plain, unavailable
from tests.support.wire import (
    Script,
    Serve,
    dripping,
    http,
    read_request,
    reset,
    saying,
)

pytestmark = [pytest.mark.django_db, pytest.mark.once, pytest.mark.usefixtures("nothing_in_the_environment")]

# Headers and bodies


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
    scripted: ScriptedAIRisk, mia: User, settings: Any, ask: Ask, script: Script
) -> None:
    give_token(mia)
    set_option(settings, API_TIMEOUT=(1, 0.3))
    scripted.scripts["/api/x"] = script
    assert "ReadTimeout" in unavailable(lambda: ask(mia, "GET", "/api/x"))


@both
def test_body_may_take_longer_than_headers(scripted: ScriptedAIRisk, mia: User, settings: Any, ask: Ask) -> None:
    give_token(mia)
    set_option(settings, API_TIMEOUT=(1, 0.5))

    def slowly(sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n")
        for _part in range(8):
            time.sleep(0.1)
            sock.sendall(b"x")

    scripted.scripts["/api/x"] = slowly
    assert ask(mia, "GET", "/api/x").content == b"x" * 8


def test_silent_stream_raises_the_library_s_error(scripted: ScriptedAIRisk, mia: User, settings: Any) -> None:
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

    scripted.scripts["/api/x"] = silently
    with (
        AIRiskSession.for_user(mia) as session,
        session.get("/api/x", stream=True) as response,
        pytest.raises(requests.ConnectionError),
    ):
        list(response.iter_content())
    on_a_loop()


@both
def test_interim_response_is_skipped(scripted: ScriptedAIRisk, mia: User, ask: Ask) -> None:
    give_token(mia)
    scripted.scripts["/api/x"] = saying(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", plain(b"first"))
    assert ask(mia, "GET", "/api/x").content == b"first"
    with AIRiskSession.for_user(mia) as session:
        assert [session.get(path).content for path in ("/api/x", "/api/y")] == [b"first", b"[]"]


# Stale connections


def calls_in_a_row(ask: Ask, user: User, *calls: tuple[str, str]) -> list[int]:
    """Make calls in one session, and return their statuses."""

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
def test_stale_connection_fails_only_writes(scripted: ScriptedAIRisk, mia: User, ask: Ask, dying: Script) -> None:
    give_token(mia)
    scripted.dies = dying
    assert calls_in_a_row(ask, mia, ("GET", "/api/x"), ("GET", "/api/y"), ("HEAD", "/api/z")) == [200] * 3
    assert scripted.paths() == ["/api/x", "/api/y", "/api/y", "/api/z", "/api/z"]
    for method in ("POST", "DELETE"):
        unavailable(lambda method=method: calls_in_a_row(ask, mia, ("GET", "/api/x"), (method, "/api/w")))  # type: ignore[misc]
    assert scripted.paths().count("/api/w") == 2


@both
def test_lost_new_connection_is_not_retried(scripted: ScriptedAIRisk, mia: User, ask: Ask) -> None:
    give_token(mia)
    scripted.scripts["/api/x"] = lambda sock: sock.shutdown(socket.SHUT_RDWR)
    unavailable(lambda: ask(mia, "GET", "/api/x"))
    assert scripted.paths() == ["/api/x"]


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
    """One pause is longer than the connect timeout, or all together are longer than the read timeout."""
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
    """A file that can only be read once."""

    def __init__(self) -> None:
        self._parts = [b"hello"]

    def readable(self) -> bool:
        return True

    def read(self, _size: int | None = -1) -> bytes:
        return self._parts.pop() if self._parts else b""


class Bare:
    """An object that can only be read."""

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
def test_uploaded_files_are_sent_again(scripted: ScriptedAIRisk, mia: User, ask: Ask, file: Callable[[], Any]) -> None:
    give_token(mia, access_token="refused")
    answer = ask(mia, "POST", "/api/Upload", data={"title": "A plan"}, files={"file": ("a.txt", file())})
    assert answer.status_code == 200
    uploads = [each.partition(b"\r\n\r\n")[2] for each in scripted.requests if each.startswith(b"POST /api/Upload")]
    assert uploads[0] == uploads[1]
    assert b"hello" in uploads[0]


@pytest.mark.parametrize("file", [Pipe, Bare, closed_file])
def test_unrepeatable_upload_stays_refused(scripted: ScriptedAIRisk, mia: User, file: Callable[[], Any]) -> None:
    def refuse(sock: socket.socket) -> None:
        sock.sendall(http(b"", "401 Unauthorized"))
        # Read its chunks: unread ones would reset the connection.
        sock.settimeout(0.3)
        with suppress(TimeoutError):
            while sock.recv(65536):
                pass

    give_token(mia, access_token="refused")
    scripted.refused = refuse
    assert ask_on_a_loop(mia, "POST", "/api/Upload", files={"file": ("a.txt", file())}).status_code == 401
    assert scripted.paths().count("/api/Upload") == 1


# Traces, and closing


def test_trace_of_the_caller_is_called_too(scripted: ScriptedAIRisk, mia: User) -> None:
    events: list[str] = []

    async def trace(event: str, _info: Any) -> None:
        events.append(event)

    give_token(mia)
    ask_on_a_loop(mia, "GET", "/api/x", extensions={"trace": trace})
    assert "http11.receive_response_headers.complete" in events


def test_winding_down_waits_for_open_streams(scripted: ScriptedAIRisk, mia: User) -> None:
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
from airisk_oauth.wire.adapter import TimedAdapter
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
    """As with prefork servers and multiprocessing."""
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
