"""The two OAuth endpoints, against a server that does its worst: exactly what is sent, and over in time."""

import asyncio
import gzip
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import tracemalloc
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock
from urllib.parse import parse_qsl, urlencode

import httpx2
import pytest
import requests

from airisk_oauth import AIRiskSession, conf
from airisk_oauth.diagnosis.look import look
from airisk_oauth.exceptions import AIRiskError, AIRiskInvalidResponse, AIRiskRefused, AIRiskUnavailable
from airisk_oauth.oauth import code_flow
from airisk_oauth.oauth.async_transport import AsyncOAuthClient
from airisk_oauth.oauth.authorization import PageShown
from airisk_oauth.oauth.calls import USER_AGENT, Send
from airisk_oauth.oauth.code_flow import obtain_silently
from airisk_oauth.oauth.deployment import Deployment
from airisk_oauth.oauth.messages import Secret
from airisk_oauth.oauth.transport import OAuthClient
from airisk_oauth.wire.environment import obstacle
from tests.support.options import set_option
from tests.support.people import give_token
from tests.support.wire import (
    TOO_LONG,
    Certificate,
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

if TYPE_CHECKING:
    from pytest_django import Settings

pytestmark = pytest.mark.usefixtures("nothing_in_the_environment")

CODE, STATE, SECRET, TOKEN = (Secret(f"canary-{name}/+=&") for name in ("code", "state", "secret", "token"))
REDIRECT_URI = "https://app.example.com/airisk/callback/"
GRANT = json.dumps({"access_token": "a-token"}).encode()


class Blocking(ExitStack):
    """The asynchronous client, driven from here."""

    def __init__(self, deployment: Deployment) -> None:
        super().__init__()
        self.deployment = deployment
        self.client = AsyncOAuthClient(deployment)
        self.loop = self.enter_context(asyncio.Runner())
        self.callback(lambda: self.loop.run(self.client.__aexit__()))

    def run(self, flow: Callable[..., Coroutine[Any, Any, Any]], *args: Any, **options: Any) -> Any:
        return self.loop.run(self.client.run(flow, *args, **options))


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


ClientOf = Callable[..., AnyClient]


def exchange(client: AnyClient, userid: str | None = "user_42") -> Any:
    return client.run(code_flow.exchange, client.deployment, CODE, userid=userid)


def authorize(client: AnyClient) -> Any:
    return client.run(code_flow.authorize, client.deployment, state=STATE, userid="user_42")


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


HTTP_DATE = "Wed, 21 Oct 2015 07:28:"
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
        ("503 Busy", "Retry-After: Fri, 31 Dec 9999 23:59:59 GMT", 60),
        ("503 Busy", f"Date: {HTTP_DATE}00 GMT\r\nRetry-After: {HTTP_DATE}17 GMT", 17),
        ("429 Slow down", f"Date: {HTTP_DATE}17 GMT\r\nRetry-After: {HTTP_DATE}17 GMT", None),
        ("503 Busy", "Retry-After: soon", None),
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
        async def flow(send: Send) -> None:
            for _again in range(2):
                await code_flow.exchange(send, client.deployment, CODE, userid=None)

        return client.run(flow)

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


# A connection that is used again


class Gateway:
    """AIRisk behind a gateway that keeps connections, and does what ``fails`` says with one that is used again.

    :param fails: for a request and its number on its connection, what is done in place of an answer.
    """

    def __init__(self, serve: Serve, fails: Callable[[bytes, int], Script | None]) -> None:
        self.fails = fails
        self.requests: list[bytes] = []
        self.connections = 0
        self.server = serve(self._script)

    def sent(self, method: str) -> list[dict[str, str]]:
        """The parameters of each request by this method."""
        found = [request for request in self.requests if request.startswith(method.encode())]
        texts = [(request.split()[1].partition(b"?")[2] or request.partition(b"\r\n\r\n")[2]) for request in found]
        return [dict(parse_qsl(text.decode())) for text in texts]

    def _script(self, sock: socket.socket) -> None:
        self.connections += 1
        request, number = self.server.seen[-1], 1
        while request:
            self.requests.append(request)
            failing = self.fails(request, number)
            if failing is not None:
                return failing(sock)
            sock.sendall(self._answer(request))
            request, number = read_request(sock), number + 1
        return None

    def _answer(self, request: bytes) -> bytes:
        if request.startswith(b"POST"):
            return f"HTTP/1.1 200 OK\r\nContent-Length: {len(GRANT)}\r\n\r\n".encode() + GRANT
        back = urlencode({"code": f"code-{len(self.requests)}", "state": self.sent("GET")[-1]["state"]})
        return f"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: {REDIRECT_URI}?{back}\r\n\r\n".encode()


def obtain(client: AnyClient) -> Any:
    return client.run(obtain_silently, client.deployment, "user_42")


def when_used_again(method: bytes, failing: Script) -> Callable[[bytes, int], Script | None]:
    return lambda request, number: failing if number > 1 and request.startswith(method) else None


@pytest.mark.parametrize("dying", [saying(), reset], ids=["close", "reset"])
def test_flow_starts_anew_with_another_code(serve: Serve, client: ClientOf, dying: Script) -> None:
    gateway = Gateway(serve, when_used_again(b"POST", dying))
    with client(gateway.server.url) as airisk:
        assert obtain(airisk).access_token == "a-token"
        assert len({form["code"] for form in gateway.sent("POST")}) == len(gateway.sent("POST")) == 2
        assert len({query["state"] for query in gateway.sent("GET")}) == len(gateway.sent("GET")) == 2
        # It is known by now what becomes of such connections.
        assert obtain(airisk).access_token == "a-token"
        assert (len(gateway.requests), gateway.connections) == (6, 5)


def test_flow_starts_anew_on_a_new_connection(serve: Serve, client: ClientOf) -> None:
    gateway = Gateway(serve, when_used_again(b"GET", saying()))
    with client(gateway.server.url) as airisk:
        assert [obtain(airisk).access_token for _ in range(2)] == ["a-token"] * 2
    assert [len(gateway.sent(method)) for method in ("GET", "POST")] == [3, 2]


def test_flow_starts_anew_only_once(serve: Serve, client: ClientOf) -> None:
    gateway = Gateway(serve, lambda request, _number: saying() if request.startswith(b"POST") else None)
    with client(gateway.server.url) as airisk:
        assert type(failure(obtain, airisk)) is AIRiskUnavailable
    assert [len(gateway.sent(method)) for method in ("GET", "POST")] == [2, 2]


def test_silence_on_used_connection_ends_a_flow(serve: Serve, client: ClientOf) -> None:
    gateway = Gateway(serve, when_used_again(b"POST", silent))
    with client(gateway.server.url, TIMEOUT=(0.5, 0.5)) as airisk:
        assert type(failure(obtain, airisk)) is AIRiskUnavailable
    assert len(gateway.sent("POST")) == 1


def test_code_of_a_browser_is_not_sent_again(serve: Serve, client: ClientOf) -> None:
    gateway = Gateway(serve, when_used_again(b"POST", saying()))
    with client(gateway.server.url) as airisk:
        exchange(airisk)
        assert type(failure(exchange, airisk)) is AIRiskUnavailable
    assert len(gateway.sent("POST")) == 2


def test_half_an_answer_is_no_new_flow(serve: Serve, client: ClientOf) -> None:
    gateway = Gateway(serve, when_used_again(b"POST", saying(b"HTT")))
    airisk = client(gateway.server.url)
    if isinstance(airisk, Blocking):
        pytest.skip("httpx2 does not tell, and another flow has another code")
    assert type(failure(obtain, airisk)) is AIRiskUnavailable
    assert len(gateway.sent("POST")) == 1


def test_interim_answer_is_not_the_answer(serve: Serve, client: ClientOf) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
    server = serve(saying(early, http(GRANT)))
    assert exchange(client(server.url)).access_token == "a-token"


# Names, addresses and proxies


@contextmanager
def named(addresses: Callable[[], list[tuple[str, int]]]) -> Iterator[None]:
    """Let ``airisk.invalid`` have these addresses."""
    resolve = socket.getaddrinfo

    def look_up(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in ("airisk.invalid", b"airisk.invalid"):
            return resolve(host, *args, **kwargs)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses()]

    with mock.patch("socket.getaddrinfo", look_up):
        yield


@contextmanager
def deaf(number: int, port: int) -> Iterator[tuple[str, int]]:
    """An address that answers nobody: its queue is full."""
    with ExitStack() as kept:
        listener = kept.enter_context(socket.create_server((f"127.0.0.{number}", port), backlog=0))
        for _ in range(4):
            waiting = kept.enter_context(socket.socket())
            waiting.setblocking(False)  # noqa: FBT003
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()


def test_dead_addresses_count_once(client: ClientOf, settings: "Settings") -> None:
    settings.DEBUG = True
    with ExitStack() as kept:
        port = kept.enter_context(deaf(2, 0))[1]
        addresses = [("127.0.0.2", port), *(kept.enter_context(deaf(number, port)) for number in (3, 4, 5))]
        with named(lambda: addresses):
            assert_is_left_within(1.5, client(f"http://airisk.invalid:{port}", TIMEOUT=(0.6, 0.9)))


def test_live_address_behind_dead_ones_is_found(serve: Serve, client: ClientOf, settings: "Settings") -> None:
    settings.DEBUG = True
    server = serve(saying(http(GRANT)))
    with deaf(2, server.port) as dead, named(lambda: [("127.0.0.3", server.port), dead, server.address]):
        assert exchange(client(f"http://airisk.invalid:{server.port}", TIMEOUT=(3, 4))).access_token == "a-token"


def test_refusing_address_leaves_the_dead_one(client: ClientOf, settings: "Settings") -> None:
    settings.DEBUG = True
    with deaf(2, 0) as dead, named(lambda: [dead, ("127.0.0.3", dead[1])]):
        error = failure(exchange, client(f"http://airisk.invalid:{dead[1]}", TIMEOUT=(0.4, 0.5)))
    assert "Timeout" in str(error)


def test_unknown_name_is_unavailable(client: ClientOf, settings: "Settings") -> None:
    def unknown() -> list[tuple[str, int]]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    settings.DEBUG = True
    with named(unknown):
        assert isinstance(failure(exchange, client("http://airisk.invalid")), AIRiskUnavailable)


def test_name_without_addresses_is_unavailable(client: ClientOf, settings: "Settings") -> None:
    settings.DEBUG = True
    with named(list):
        assert isinstance(failure(exchange, client("http://airisk.invalid")), AIRiskUnavailable)


def test_hanging_resolver_is_not_waited_for(client: ClientOf, settings: "Settings") -> None:
    settings.DEBUG = True
    over = threading.Event()

    def hang() -> list[tuple[str, int]]:
        over.wait(TOO_LONG)
        return []

    # The event loop's own thread is waited for when it is closed.
    with named(hang), ExitStack() as end:
        airisk = client("http://airisk.invalid", TIMEOUT=(0.1, 0.2))
        end.callback(over.set)
        assert isinstance(failure(exchange, airisk), AIRiskUnavailable)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "me:canary-password@localhost", "//localhost"])
def test_proxy_without_a_scheme_is_http(
    serve: Serve, client: ClientOf, settings: "Settings", monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    settings.DEBUG = True
    proxy = serve(saying(http(GRANT)))
    monkeypatch.setenv("http_proxy", f"{host}:{proxy.port}")
    assert exchange(client("http://airisk.invalid")).access_token == "a-token"


@pytest.mark.parametrize(
    ("variable", "value", "cause"),
    [
        ("https_proxy", "socks://me:canary-password@proxy.corp:1080", "proxy with the scheme socks,"),
        ("https_proxy", "ftp://proxy.corp", "proxy with the scheme ftp,"),
        ("https_proxy", "http://me:canary-password@[proxy.corp", "proxy with an invalid address"),
        ("https_proxy", "http://", "proxy with an invalid address"),
        ("https_proxy", "me:canary-password@[proxy.corp", "proxy with an invalid address"),
        ("REQUESTS_CA_BUNDLE", "/nowhere/bundle.pem", "the CA certificate bundle .* does not exist"),
    ],
)
def test_fault_of_the_environment_is_named(
    client: ClientOf, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, cause: str
) -> None:
    monkeypatch.setenv(variable, value)
    error = failure(exchange, client("https://127.0.0.1:9"))
    assert isinstance(error, AIRiskUnavailable)
    assert re.search(cause, str(error))


def onward(server: Server) -> Script:
    """A proxy that has been asked for a tunnel, and leads it to this server."""

    def script(sock: socket.socket) -> None:
        sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with socket.create_connection(server.address) as other, ThreadPoolExecutor(1) as pool:
            pool.submit(pump, other, sock)
            pump(sock, other)

    return script


def pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while part := source.recv(65536):
            target.sendall(part)
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("scheme", ["", "http://"])
def test_tunnel_of_a_proxy_is_used(
    serve: Serve, client: ClientOf, certificate: Certificate, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    context, bundle = certificate("airisk.invalid")
    server = serve(saying(http(GRANT)), context)
    proxy = serve(onward(server))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", bundle)
    monkeypatch.setenv("https_proxy", f"{scheme}127.0.0.1:{proxy.port}")
    with client("https://airisk.invalid") as airisk:
        assert exchange(airisk).access_token == "a-token"
    assert len(server.seen) == 1
    proxy.script = saying(http(b"", "403 Forbidden"))
    with client("https://airisk.invalid") as airisk:
        assert isinstance(failure(exchange, airisk), AIRiskUnavailable)


WITHOUT_SOCKS = """
import asyncio, sys
sys.modules["socks"] = sys.modules["socksio"] = None
from types import SimpleNamespace
from django.conf import settings
settings.configure(USE_TZ=True)
from airisk_oauth.oauth.async_transport import AsyncOAuthClient
from airisk_oauth.oauth.messages import OAuthRequest
from airisk_oauth.oauth.transport import OAuthClient
airisk = SimpleNamespace(alias="default", base_url="https://127.0.0.1:9", timeout=(1, 1))
async def flow(send):
    await send(OAuthRequest("GET", airisk.base_url))
async def run():
    async with AsyncOAuthClient(airisk) as client:
        await client.run(flow)
for call in (lambda: OAuthClient(airisk).run(flow), lambda: asyncio.run(run())):
    try:
        call()
    except Exception as error:
        print(type(error).__name__, error)
"""


def test_missing_package_for_socks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "socks", None)
    assert (
        str(obstacle("socks5://127.0.0.1:9", bundle=True)) == "the environment names a SOCKS proxy, which needs PySocks"
    )
    environment = {**os.environ, "https_proxy": "socks5h://127.0.0.1:9", "no_proxy": ""}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WITHOUT_SOCKS],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    first, second = done.stdout.splitlines()
    needs = "AIRiskUnavailable AIRisk did not answer (ProxyUnusable: the environment names a SOCKS proxy, which needs"
    assert (first, second) == (f"{needs} PySocks).", f"{needs} socksio).")


def socks(server: Server) -> Script:
    """A SOCKS5 proxy (RFC 1928) without authentication, which leads everywhere to this server."""

    def script(sock: socket.socket) -> None:
        sock.sendall(b"\x05\x00")
        sock.recv(262)
        sock.sendall(b"\x05\x00\x00\x01" + bytes(6))
        with socket.create_connection(server.address) as onward:
            onward.sendall(read_request(sock))
            while part := onward.recv(65536):
                sock.sendall(part)

    return script


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_socks_proxy_is_used(
    serve: Serve, client: ClientOf, settings: "Settings", monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    settings.DEBUG = True
    proxy = serve(socks(serve(saying(http(GRANT)))))
    proxy.greeting = 3
    monkeypatch.setenv("http_proxy", f"{scheme}://127.0.0.1:{proxy.port}")
    with named(lambda: [("127.0.0.1", 9)]):
        assert exchange(client("http://airisk.invalid")).access_token == "a-token"


def test_site_with_its_own_way_to_connect_keeps_it(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    """Replacing ``create_connection`` of urllib3 is how many sites choose addresses."""
    settings.DEBUG = True
    server = serve(saying(http(GRANT)))
    monkeypatch.setattr(
        "urllib3.util.connection.create_connection",
        lambda _address, *_args, **_kwargs: socket.create_connection(server.address),
    )
    set_option(settings, BASE_URL="http://airisk.invalid")
    with OAuthClient(conf.deployment()) as airisk:
        assert exchange(airisk).access_token == "a-token"


# The site's own time limit


class Limit(TimeoutError):
    """What a site's handler raises."""


class Handler:
    def __call__(self, *_args: object) -> None:
        raise Limit

    def method(self, *args: object) -> None:
        self(*args)


@contextmanager
def limited(handler: Any) -> Iterator[Callable[[], None]]:
    """Handle SIGALRM like this, and lend a function that sends it to this process."""
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
def test_site_s_own_time_limit_is_raised_as_it_is(serve: Serve, settings: Any, handler: Any, start: bytes) -> None:
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


def test_time_limit_is_raised_from_a_loop(settings: Any) -> None:
    async def handle(_transport: Any, _request: Any) -> Any:
        strike()
        await asyncio.sleep(0)

    with (
        limited(raise_limit) as strike,
        mock.patch.object(httpx2.AsyncHTTPTransport, "handle_async_request", handle),
        Blocking(conf.deployment()) as airisk,
        pytest.raises(Limit),
    ):
        exchange(airisk)


def test_timeout_in_a_thread_is_unavailable(serve: Serve, settings: Any) -> None:
    set_option(settings, BASE_URL=serve(silent).url, TIMEOUT=(0.1, 0.1))
    with OAuthClient(conf.deployment()) as airisk, ThreadPoolExecutor(1) as pool:
        assert isinstance(pool.submit(failure, exchange, airisk).result(), AIRiskUnavailable)


# The doctor


def test_look_of_the_doctor_is_over_in_time(serve: Serve, settings: Any) -> None:
    set_option(settings, BASE_URL=serve(dripping(b"HTTP/1.1 200 OK\r\nX: ", b"x")).url)
    began = time.monotonic()
    with pytest.raises(requests.ReadTimeout):
        look(conf.deployment(), conf.deployment().base_url, (0.2, 0.2), {})
    assert time.monotonic() - began < TOO_LONG / 2


def test_look_of_the_doctor_follows_nothing(serve: Serve, settings: Any) -> None:
    server = serve(saying(http(b"", "302 Found", "Location: /elsewhere", "Date: today")))
    set_option(settings, BASE_URL=server.url)
    seen = look(conf.deployment(), server.url, (1, 1), {"User-Agent": USER_AGENT})
    assert (seen.status, seen.headers["Date"], len(server.seen)) == (302, "today", 1)
