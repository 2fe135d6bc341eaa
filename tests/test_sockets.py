"""Connecting within a time limit, and sockets with a deadline."""

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from airisk_oauth.wire import sockets
from airisk_oauth.wire.limits import CallTimeout, TimedSocket
from tests.support.wire import TOO_LONG


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    here, there = socket.socketpair()
    with here, there:
        yield here, there


def test_work_in_time_returns_or_raises() -> None:
    def fail() -> None:
        raise KeyError("x")

    assert sockets.run_with_timeout(lambda: 7, 5) == sockets.run_with_timeout(lambda: 7, None) == 7
    with pytest.raises(KeyError):
        sockets.run_with_timeout(fail, 5)


def test_late_work_is_abandoned_and_closed(pair: tuple[socket.socket, socket.socket]) -> None:
    here, there = pair
    begun, over = threading.Event(), threading.Event()

    def late(result: Any) -> Any:
        begun.set()
        over.wait(TOO_LONG)
        return result

    for result in (here, "nothing to close"):
        with pytest.raises(TimeoutError):
            sockets.run_with_timeout(lambda result=result: late(result), 0.05)  # type: ignore[misc]
        assert begun.is_set()
    over.set()
    there.settimeout(TOO_LONG)
    assert there.recv(1) == b""


def test_work_runs_here_if_no_thread_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert sockets.run_with_timeout(threading.get_ident, 5) == threading.get_ident()


def test_failing_address_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        nowhere = (socket.AF_UNIX, socket.SOCK_STREAM, 0, "", "/nowhere/socket")
        here = (socket.AF_INET, socket.SOCK_STREAM, 0, "", server.getsockname())
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_args: [nowhere, here])
        options = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1, "tcp")]
        with sockets.connect("airisk.invalid", 0, 0, [], None) as sock:
            assert (sock.getpeername(), sock.gettimeout()) == (server.getsockname(), None)
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_args: [here])
        with sockets.connect("127.0.0.1", 0, 0, options, 5) as sock:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_socket_is_not_read_after_its_deadline(pair: tuple[socket.socket, socket.socket]) -> None:
    """With urllib3-future installed, the socket is read by ``recv``; otherwise as a file."""
    here, there = pair
    there.sendall(b"ab")
    timed, call = TimedSocket(here), CallTimeout(1, 1)
    timed.call, timed.deadline = call, time.monotonic() + TOO_LONG
    assert (timed.recv(1), call.has_answer) == (b"a", True)
    timed.deadline = time.monotonic() - 1
    with pytest.raises(TimeoutError, match="too long"):
        timed.recv(1)
    with pytest.raises(TimeoutError, match="too long"):
        timed.makefile("rb").read(1)
    timed.deadline = None
    assert timed.recv(1) == b"b"
