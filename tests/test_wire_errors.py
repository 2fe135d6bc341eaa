"""Errors and timeouts of calls of the API, the same on both sides."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User

from airisk_oauth import AsyncAIRiskClient
from tests.support.options import set_option
from tests.support.people import give_token
from tests.support.scripted import Ask, ScriptedAIRisk, ask_blocking, ask_on_a_loop, both, head, plain, unavailable
from tests.support.wire import (
    read_request,
    silent,
)

pytestmark = [pytest.mark.django_db, pytest.mark.once, pytest.mark.usefixtures("nothing_in_the_environment")]


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
def test_body_that_breaks_off_is_unavailable(scripted: ScriptedAIRisk, mia: User, ask: Ask) -> None:
    def break_off(sock: socket.socket) -> None:
        sock.sendall(head("200 OK", "Content-Length: 9"))
        sock.shutdown(socket.SHUT_RDWR)

    give_token(mia)
    scripted.scripts["/api/x"] = break_off
    unavailable(lambda: ask(mia, "GET", "/api/x"))


@both
def test_timeout_none_means_the_deployments(scripted: ScriptedAIRisk, mia: User, settings: Any, ask: Ask) -> None:
    give_token(mia)
    set_option(settings, API_TIMEOUT=(1, 0.2))
    scripted.scripts["/api/x"] = silent
    assert "ReadTimeout" in unavailable(lambda: ask(mia, "GET", "/api/x", timeout=None))


@pytest.mark.parametrize(("ask", "endless"), [(ask_blocking, (None, None)), (ask_on_a_loop, httpx2.Timeout(None))])
def test_timeout_can_be_switched_off(
    scripted: ScriptedAIRisk, mia: User, settings: Any, ask: Ask, endless: Any
) -> None:
    give_token(mia)
    set_option(settings, API_TIMEOUT=(1, 0.1))

    def late(sock: socket.socket) -> None:
        time.sleep(0.3)
        sock.sendall(plain())

    scripted.scripts["/api/x"] = late
    assert ask(mia, "GET", "/api/x", timeout=endless).status_code == 200


def test_repeated_call_has_elapsed_time(scripted: ScriptedAIRisk, mia: User) -> None:
    give_token(mia, access_token="refused")
    assert ask_blocking(mia, "GET", "/api/x").elapsed > timedelta(0)


class Limit(TimeoutError):
    """Raised by a site's own handler for SIGALRM."""


@pytest.fixture
def strike() -> Iterator[Callable[[], None]]:
    def handle(*_args: object) -> None:
        raise Limit

    before = signal.signal(signal.SIGALRM, handle)
    yield lambda: os.kill(os.getpid(), signal.SIGALRM)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("start", [b"", head("200 OK", "Content-Length: 9")], ids=["headers", "body"])
def test_time_limit_of_the_site_is_raised(
    scripted: ScriptedAIRisk, mia: User, strike: Callable[[], None], start: bytes
) -> None:
    def script(sock: socket.socket) -> None:
        sock.sendall(start)
        time.sleep(0.05)
        strike()
        read_request(sock)

    give_token(mia)
    scripted.scripts["/api/x"] = script
    with pytest.raises(Limit):
        ask_blocking(mia, "GET", "/api/x")


def test_time_limit_is_raised_while_discarding(scripted: ScriptedAIRisk, mia: User, strike: Callable[[], None]) -> None:
    def refuse(sock: socket.socket) -> None:
        sock.sendall(head("302 Found", "Location: /api/y", "Content-Length: 9"))
        time.sleep(0.1)
        strike()
        read_request(sock)

    give_token(mia)
    scripted.scripts["/api/x"] = refuse
    with pytest.raises(Limit):
        ask_blocking(mia, "GET", "/api/x", follow=True)


def test_time_limit_is_raised_on_a_loop(scripted: ScriptedAIRisk, mia: User, strike: Callable[[], None]) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"one"
        strike()
        await asyncio.sleep(0)

    give_token(mia)
    client = AsyncAIRiskClient.for_user(mia, keep_alive=False)
    # With the token in memory, because another thread cannot use the database here.
    async_to_sync(client.get)("/api/x")
    with pytest.raises(Limit):
        asyncio.run(client.post("/api/x", content=parts()))


def test_handler_without_python_code_is_ignored(scripted: ScriptedAIRisk, mia: User) -> None:
    give_token(mia)
    scripted.scripts["/api/x"] = socket.socket.close
    # Python's own handler for Ctrl+C is written in C.
    before = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    try:
        unavailable(lambda: ask_blocking(mia, "GET", "/api/x"))
    finally:
        signal.signal(signal.SIGUSR1, before)
