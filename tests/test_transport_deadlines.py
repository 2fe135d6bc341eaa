"""Calls of the OAuth endpoints end in time, however slow the server is, and let a site's own time limit through."""

import asyncio
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

import httpx2
import pytest
import requests

from airisk_oauth import conf
from airisk_oauth.diagnosis.look import look
from airisk_oauth.exceptions import AIRiskUnavailable
from airisk_oauth.oauth import code_flow
from airisk_oauth.oauth.calls import Send
from airisk_oauth.oauth.transport import OAuthClient
from tests.support.oauth_clients import (
    CHUNKED,
    CODE,
    GRANT,
    HALF_A_TOKEN,
    AnyClient,
    BlockingAsyncOAuthClient,
    MakeClient,
    assert_times_out_within,
    error_of,
    exchange,
    with_each_call,
)
from tests.support.options import set_option
from tests.support.wire import TOO_LONG, Certificate, Script, Serve, dripping, http, silent

pytestmark = pytest.mark.usefixtures("nothing_in_the_environment")


# Slow servers


@with_each_call
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
def test_slow_server_is_left_at_the_deadline(serve: Serve, make_client: MakeClient, call: Any, script: Script) -> None:
    server = serve(script)
    assert isinstance(error_of(call, make_client(server.url, TIMEOUT=(0.1, 0.15))), AIRiskUnavailable)
    # On a slow machine the request may never have been read.
    assert len(server.seen) <= 1


def test_late_silence_gets_no_extra_time(serve: Serve, make_client: MakeClient) -> None:
    def script(sock: socket.socket) -> None:
        time.sleep(0.6)
        sock.sendall(b"HTTP/1.1 200 OK\r\n")
        silent(sock)

    assert_times_out_within(1.3, make_client(serve(script).url, TIMEOUT=(0.8, 0.8)))


def test_slow_server_with_tls_is_left_in_time(
    serve: Serve, make_client: MakeClient, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, bundle = certificate("127.0.0.1")
    server = serve(dripping(b"HTTP/1.1 200 OK\r\nX: ", b"x"), context)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", bundle)
    assert isinstance(error_of(exchange, make_client(server.url, TIMEOUT=(0.3, 0.3))), AIRiskUnavailable)
    assert len(server.seen) == 1


def test_slow_proxy_is_left_in_time(
    serve: Serve, make_client: MakeClient, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.DEBUG = True
    proxy = serve(dripping(b"HTTP/1.1 200 OK\r\n", b"X: x"))
    monkeypatch.setenv("http_proxy", proxy.url)
    error_of(exchange, make_client("http://airisk.invalid", TIMEOUT=(0.3, 0.3)))
    assert proxy.seen


def test_slow_tunnel_is_left_in_time(serve: Serve, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = serve(dripping(b"HTTP/1.1 200 ", b"O"))
    monkeypatch.setenv("https_proxy", proxy.url)
    error_of(exchange, make_client("https://airisk.invalid", TIMEOUT=(0.3, 0.3)))
    assert proxy.seen[0].startswith(b"CONNECT airisk.invalid:443 HTTP/1.")
    assert b"client" not in proxy.seen[0]


def test_slow_resolver_gives_no_extra_time(
    serve: Serve, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo

    def slowly(*args: Any, **kwargs: Any) -> Any:
        time.sleep(0.3)
        return resolve(*args, **kwargs)

    server = serve(dripping(b"HTTP/1.1 200 OK\r\nX: ", b"x"))
    monkeypatch.setattr(socket, "getaddrinfo", slowly)
    assert_times_out_within(0.5, make_client(server.url, TIMEOUT=(0.25, 0.25)))


def test_all_calls_of_a_flow_share_one_deadline(serve: Serve, make_client: MakeClient) -> None:
    """The next flow gets a new one."""

    def script(sock: socket.socket) -> None:
        time.sleep(0.6 if len(server.seen) <= 2 else 0)
        sock.sendall(http(GRANT))

    def exchange_twice(client: AnyClient) -> Any:
        async def flow(send: Send) -> None:
            for _again in range(2):
                await code_flow.exchange(send, client.deployment, CODE, userid=None)

        return client.run(flow)

    server = serve(script)
    airisk = make_client(server.url, TIMEOUT=(1, 1))
    assert isinstance(error_of(exchange_twice, airisk), AIRiskUnavailable)
    assert exchange(airisk).access_token == "a-token"


def test_look_of_the_doctor_ends_in_time(serve: Serve, settings: Any) -> None:
    set_option(settings, BASE_URL=serve(dripping(b"HTTP/1.1 200 OK\r\nX: ", b"x")).url)
    began = time.monotonic()
    with pytest.raises(requests.ReadTimeout):
        look(conf.deployment(), conf.deployment().base_url, (0.2, 0.2), {})
    assert time.monotonic() - began < TOO_LONG / 2


# A site's own time limit


class Limit(TimeoutError):
    """What the signal handler of a site raises."""


class Handler:
    def __call__(self, *_args: object) -> None:
        raise Limit

    def method(self, *args: object) -> None:
        self(*args)


@contextmanager
def limited(handler: Any) -> Iterator[Callable[[], None]]:
    """Set a handler of SIGALRM, and return a function that sends this signal to this process."""
    before = signal.signal(signal.SIGALRM, handler)
    try:
        yield lambda: os.kill(os.getpid(), signal.SIGALRM)
    finally:
        signal.signal(signal.SIGALRM, before)


def raise_limit(*_args: object) -> None:
    raise Limit


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"], ids=["headers", "body"])
@pytest.mark.parametrize(
    "handler",
    [raise_limit, Handler(), Handler().method, partial(raise_limit)],
    ids=["function", "object", "method", "partial"],
)
def test_time_limit_of_a_site_is_raised_as_it_is(serve: Serve, settings: Any, handler: Any, start: bytes) -> None:
    def script(sock: socket.socket) -> None:
        sock.sendall(start)
        time.sleep(0.05)
        strike()
        silent(sock)

    set_option(settings, BASE_URL=serve(script).url)
    with limited(handler) as strike, OAuthClient(conf.deployment()) as airisk, pytest.raises(Limit) as raised:
        exchange(airisk)
    shown = "".join(traceback.TracebackException.from_exception(raised.value, capture_locals=True).format())
    assert "canary" not in shown


def test_time_limit_is_raised_from_an_event_loop(settings: Any) -> None:
    async def handle(_transport: Any, _request: Any) -> Any:
        strike()
        await asyncio.sleep(0)

    with (
        limited(raise_limit) as strike,
        mock.patch.object(httpx2.AsyncHTTPTransport, "handle_async_request", handle),
        BlockingAsyncOAuthClient(conf.deployment()) as airisk,
        pytest.raises(Limit),
    ):
        exchange(airisk)


def test_timeout_in_a_thread_is_unavailable(serve: Serve, settings: Any) -> None:
    set_option(settings, BASE_URL=serve(silent).url, TIMEOUT=(0.1, 0.1))
    with OAuthClient(conf.deployment()) as airisk, ThreadPoolExecutor(1) as pool:
        assert isinstance(pool.submit(error_of, exchange, airisk).result(), AIRiskUnavailable)
