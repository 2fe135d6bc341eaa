"""Calls of the two OAuth endpoints: exactly what is sent, and what becomes of every response.

Slow servers, proxies and certificates, addresses and connections have files of their own.
"""

import asyncio
import gzip
import json
import tracemalloc
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

import pytest

from airisk_oauth import conf
from airisk_oauth.diagnosis.look import look
from airisk_oauth.exceptions import AIRiskInvalidResponse, AIRiskRefused, AIRiskUnavailable
from airisk_oauth.oauth.authorization import PageShown
from airisk_oauth.oauth.calls import USER_AGENT, run
from tests.support.oauth_clients import (
    CHUNKED,
    CODE,
    GRANT,
    HALF_A_TOKEN,
    REDIRECT_URI,
    SECRET,
    STATE,
    MakeClient,
    authorize,
    error_of,
    exchange,
    with_each_call,
)
from tests.support.options import set_option
from tests.support.wire import Script, Serve, flooding, http, reset, saying

pytestmark = pytest.mark.usefixtures("nothing_in_the_environment")


# What is sent


def test_token_request_is_as_documented(serve: Serve, make_client: MakeClient) -> None:
    server = serve(saying(http(GRANT)))
    assert exchange(make_client(f"{server.url}/tenant")).access_token == "a-token"
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


def test_userid_is_left_out_and_extras_are_added(serve: Serve, make_client: MakeClient) -> None:
    server = serve(saying(http(GRANT)))
    extra = {"grant_type": "authorization_code"}
    exchange(make_client(server.url, TOKEN_PATH="/token", EXTRA_TOKEN_PARAMS=extra), userid=None)
    assert server.seen[0].startswith(b"POST /token HTTP/1.1\r\n")
    sent = dict(parse_qsl(server.seen[0].partition(b"\r\n\r\n")[2].decode()))
    assert sent.keys() == {"code", "client_id", "client_secret", "redirect_uri", "grant_type"}


def test_authorization_request_is_as_documented(serve: Serve, make_client: MakeClient) -> None:
    server = serve(saying(http(b"", "401 Unauthorized")))
    error_of(authorize, make_client(server.url, EXTRA_AUTHORIZE_PARAMS={"response_type": "code"}))
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


def test_cookies_are_never_sent_back(serve: Serve, make_client: MakeClient) -> None:
    cookies = ("Set-Cookie: ARRAffinity=1; Path=/", "Set-Cookie: session=2")
    server = serve(saying(http(GRANT, "200 OK", *cookies)))
    airisk = make_client(server.url)
    for _ in range(3):
        exchange(airisk)
    assert [server.headers(number).get("Cookie") for number in range(3)] == [None] * 3


# Redirects


def test_code_is_taken_from_the_redirect(serve: Serve, make_client: MakeClient) -> None:
    location = f"Location: {REDIRECT_URI}?code=c%2B1&state=canary-state%2F%2B%3D%26"
    server = serve(saying(http(b"<html>", "302 Found", location)))
    assert authorize(make_client(server.url)) == "c+1"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_token_redirect_is_not_followed(serve: Serve, make_client: MakeClient, status: int) -> None:
    other = serve(saying(http(GRANT)))
    server = serve(saying(http(GRANT, f"{status} Moved", f"Location: {other.url}/api/oauth2/Token")))
    error = error_of(exchange, make_client(server.url))
    assert isinstance(error, AIRiskInvalidResponse)
    assert str(status) in str(error)
    server.script = saying(http(b"", f"{status} Moved", "Location: /api/oauth2/Token"))
    error_of(exchange, make_client(server.url))
    assert (len(server.seen), other.seen) == (2, [])


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_elsewhere_requires_a_person(serve: Serve, make_client: MakeClient, status: int) -> None:
    other = serve(saying(http()))
    server = serve(saying(http(b"", f"{status} Moved", f"Location: {other.url}/login")))
    assert isinstance(error_of(authorize, make_client(server.url)), PageShown)
    assert (len(server.seen), other.seen) == (1, [])


@with_each_call
@pytest.mark.parametrize("location", ["http://[", "//", "\xff\xfe", "http://a:b/", "https://*.example/", "x" * 60_000])
def test_unreadable_location_is_our_error(serve: Serve, make_client: MakeClient, call: Any, location: str) -> None:
    server = serve(saying(http(b"", "302 Found", f"Location: {location}")))
    error_of(call, make_client(server.url))


def test_look_of_the_doctor_follows_no_redirect(serve: Serve, settings: Any) -> None:
    server = serve(saying(http(b"", "302 Found", "Location: /elsewhere", "Date: today")))
    set_option(settings, BASE_URL=server.url)
    seen = look(conf.deployment(), server.url, (1, 1), {"User-Agent": USER_AGENT})
    assert (seen.status, seen.headers["Date"], len(server.seen)) == (302, "today", 1)


# Bodies


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
def test_endless_body_is_read_up_to_64_kib(
    serve: Serve, make_client: MakeClient, call: Any, status: str, headers: list[str], script: Callable[[bytes], Script]
) -> None:
    start = "\r\n".join([f"HTTP/1.1 {status}", "Location: /", *headers, "", ""]).encode()
    airisk = make_client(serve(script(start)).url)
    tracemalloc.start()
    try:
        assert isinstance(error_of(call, airisk), AIRiskInvalidResponse)
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


def test_body_of_64_kib_is_read(serve: Serve, make_client: MakeClient) -> None:
    airisk = make_client(serve(saying(http(GRANT.ljust(64 * 1024)))).url)
    assert exchange(airisk).access_token == "a-token"


def test_body_over_64_kib_is_invalid(serve: Serve, make_client: MakeClient) -> None:
    airisk = make_client(serve(saying(http(GRANT.ljust(64 * 1024 + 1)))).url)
    assert isinstance(error_of(exchange, airisk), AIRiskInvalidResponse)


@with_each_call
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
def test_broken_answer_is_unavailable(serve: Serve, make_client: MakeClient, call: Any, script: Script) -> None:
    server = serve(script)
    assert isinstance(error_of(call, make_client(server.url)), AIRiskUnavailable)
    assert len(server.seen) == 1


@pytest.mark.parametrize("length", ["7", "banana", "-1", "9" * 30])
def test_wrong_content_length_is_our_error(serve: Serve, make_client: MakeClient, length: str) -> None:
    raw = f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n".encode() + HALF_A_TOKEN
    error_of(exchange, make_client(serve(saying(raw)).url))


def test_interim_answer_is_not_the_answer(serve: Serve, make_client: MakeClient) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
    server = serve(saying(early, http(GRANT)))
    assert exchange(make_client(server.url)).access_token == "a-token"


# Outages, refusals and tokens that cannot be used


HTTP_DATE = "Wed, 21 Oct 2015 07:28:"


@with_each_call
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
def test_outage_says_how_long_to_wait(
    serve: Serve, make_client: MakeClient, call: Any, status: str, header: str, seconds: int | None
) -> None:
    body = b'{"title": "canary-token"}'
    error = error_of(call, make_client(serve(saying(http(body, status, header))).url))
    assert isinstance(error, AIRiskUnavailable)
    assert error.retry_after == seconds


def test_refusal_has_a_reason_and_a_trace_id(serve: Serve, make_client: MakeClient) -> None:
    problem = {"title": "Unauthorized", "traceId": "00-1", "detail": f"{CODE} {SECRET}"}
    content_type = "Content-Type: application/problem+json"
    server = serve(saying(http(json.dumps(problem).encode(), "401 Unauthorized", content_type)))
    error = error_of(exchange, make_client(server.url))
    assert isinstance(error, AIRiskRefused)
    assert (error.status, error.reason, error.trace_id) == (401, "Unauthorized", "00-1")


def test_refusal_in_plain_text_has_a_reason(serve: Serve, make_client: MakeClient) -> None:
    server = serve(saying(http(b"Invalid Code", "400 Bad Request", "Content-Type: Text/Plain")))
    with pytest.raises(AIRiskRefused, match="status 400: Invalid Code"):
        exchange(make_client(server.url))


@pytest.mark.parametrize("echo", [CODE, SECRET], ids=["code", "secret"])
def test_refusal_repeats_no_code_and_no_secret(serve: Serve, make_client: MakeClient, echo: str) -> None:
    server = serve(saying(http(f"Invalid {echo}".encode(), "400 Bad Request", "Content-Type: Text/Plain")))
    error = error_of(exchange, make_client(server.url))
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
def test_unusable_token_shows_in_no_traceback(serve: Serve, make_client: MakeClient, members: Any) -> None:
    server = serve(saying(http(json.dumps(members).encode())))
    assert isinstance(error_of(exchange, make_client(server.url)), AIRiskInvalidResponse)


# Without an event loop


def test_run_refuses_what_waits_for_event_loop() -> None:
    left: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.sleep(0)
        finally:
            left.append("cleaned up")

    with pytest.raises(RuntimeError, match="event loop"):
        run(wait())
    assert left == ["cleaned up"]
