"""The messages of OAuth 2: what their ``repr`` hides, what is read of a response, and how much of it."""

import tracemalloc
from functools import partial
from typing import Any

import pytest

from airisk_oauth.exceptions import AIRiskError, AIRiskInvalidResponse
from airisk_oauth.oauth.authorization import MAX_QUERY, MalformedCallback, authorization_url, read_callback
from airisk_oauth.oauth.calls import response_of
from airisk_oauth.oauth.deployment import origin_of
from airisk_oauth.oauth.messages import MAX_BODY, MAX_TOKEN, OAuthRequest, OAuthResponse, Secret, TokenGrant
from airisk_oauth.oauth.refusals import MAX_RETRY_AFTER
from airisk_oauth.oauth.token import MAX_LIFE, parse_token_response, token_form
from tests.support.oauth import (
    CANARIES,
    CODE,
    NOW,
    REDIRECT_URI,
    STATE,
    TOKEN,
    answer,
    assert_reveals_nothing,
    code_of,
    deployment,
    redirect,
)


@pytest.mark.parametrize(
    "value",
    [
        Secret(TOKEN),
        TokenGrant(Secret(TOKEN), NOW),
        OAuthResponse(200, TOKEN.encode(), location=f"{REDIRECT_URI}?code={CODE}"),
        OAuthRequest("POST", f"{REDIRECT_URI}?{STATE}", {"code": CODE}),
        read_callback(f"code={CODE}&state={STATE}"),
        read_callback(f"error=access_denied&error_description={CODE}&state={STATE}"),
        token_form(deployment(), code=CODE, userid=None),
        authorization_url(deployment(), state=STATE, userid=None),
        parse_token_response(answer(), now=NOW),
        code_of(redirect(f"code={CODE}&state={STATE}")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_repr_of_a_message_shows_no_secret(value: object) -> None:
    for text in (repr(value), f"{value!r:>40}", repr([value]), f"{value!a}"):
        assert not [canary for canary in CANARIES if canary in text]


def test_secret_is_still_the_string_it_hides() -> None:
    assert repr(Secret(TOKEN)) == "'[secret]'"
    assert Secret(TOKEN) == TOKEN
    assert f"Bearer {Secret(TOKEN)}" == f"Bearer {TOKEN}"


def test_response_keeps_what_the_protocol_uses() -> None:
    headers = {
        "location": "/There",
        "content-type": "Application/JSON; charset=utf-8",
        "retry-after": "17",
        "x": "y",
    }
    assert OAuthResponse.of(302, headers, b"body") == OAuthResponse(
        302, b"body", "/There", "application/json; charset=utf-8", "17"
    )
    assert OAuthResponse.of(200, {}, b"") == OAuthResponse(200, b"", None, "", "")


def test_body_that_is_too_long_is_invalid() -> None:
    with pytest.raises(AIRiskInvalidResponse) as raised:
        response_of(200, {"location": CODE}, None, now=NOW)
    assert str(raised.value) == "AIRisk's answer is longer than any token."
    assert_reveals_nothing(raised.value)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://demo.aicrisk.com/api?x#y", ("https", "demo.aicrisk.com", 443)),
        ("HTTPS://Demo.AICRisk.com", ("https", "demo.aicrisk.com", 443)),
        ("http://[::1]:8000/", ("http", "::1", 8000)),
        ("http://localhost", ("http", "localhost", 80)),
        ("/api", None),
        ("//demo.aicrisk.com", None),
        ("ftp://demo.aicrisk.com", None),
        ("https:///api", None),
        ("https://user@demo.aicrisk.com", None),
        ("https://demo.aicrisk.com@evil.example", None),
        ("https://demo.aicrisk.com:port", None),
        ("https://demo.aicrisk.com:99999", None),
        ("https://[", None),
        ("", None),
    ],
)
def test_origin_is_scheme_host_and_port(url: str, origin: tuple[str, str, int] | None) -> None:
    assert origin_of(url) == origin


def test_responses_are_read_up_to_these_limits() -> None:
    assert (MAX_BODY, MAX_QUERY, MAX_TOKEN) == (64 * 1024, 16 * 1024, 16 * 1024)
    assert (MAX_LIFE.days, MAX_RETRY_AFTER) == (3653, 60)


@pytest.mark.parametrize(
    "read",
    [
        *(
            partial(lambda body: parse_token_response(OAuthResponse(200, body[:MAX_BODY]), now=NOW), body)
            for body in (
                b"[" * MAX_BODY,
                b'{"a":' * MAX_BODY,
                b"[" + b"[]," * MAX_BODY,
                b"[" + b"{}," * MAX_BODY,
                b"[" + b"1e5," * MAX_BODY,
                b"9" * MAX_BODY,
                b'"' + b"\\u0000" * MAX_BODY,
                b"{" + b"".join(b'"%d":0,' % number for number in range(MAX_BODY // 8)),
                b"\xff" * MAX_BODY,
            )
        ),
        *(
            partial(read_callback, query)
            for query in ("&" * 2**20, "%41" * MAX_QUERY, "a=" * 2**20, "+" * MAX_QUERY, "\ud800" * 2**20)
        ),
        lambda: code_of(redirect("%41" * MAX_BODY)),
        lambda: parse_token_response(OAuthResponse(400, b" " * MAX_BODY, content_type="text/plain"), now=NOW),
    ],
)
def test_worst_responses_cost_little_memory(read: Any) -> None:
    tracemalloc.start()
    try:
        with pytest.raises((AIRiskError, MalformedCallback)):
            read()
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()
