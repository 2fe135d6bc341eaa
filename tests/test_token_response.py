"""AIRisk's token endpoint: its form, the token in its response, and when the token expires."""

import json
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airisk_oauth.exceptions import AIRiskError, AIRiskInvalidResponse
from airisk_oauth.oauth.messages import MAX_TOKEN, OAuthResponse, Secret, TokenGrant
from airisk_oauth.oauth.token import MAX_LIFE, parse_token_response, token_form
from tests.support.oauth import (
    CANARIES,
    CODE,
    NOW,
    REDIRECT_URI,
    SECRET,
    TOKEN,
    answer,
    assert_reveals_nothing,
    deployment,
    quickly,
    statuses,
)

# The form


@pytest.mark.parametrize("userid", ["user_42", None])
def test_token_form_has_the_documented_fields(userid: str | None) -> None:
    sent = {"code": CODE, "client_id": "c&1", "client_secret": SECRET, "redirect_uri": REDIRECT_URI}
    form = token_form(deployment(), code=CODE, userid=userid)
    assert form == (sent if userid is None else {**sent, "userid": userid})


def test_extra_fields_cannot_replace_our_own() -> None:
    extra = {"response_type": "code", "code": "evil", "client_secret": "evil", "userid": "evil"}
    form = token_form(deployment(extra_token_params=extra), code=CODE, userid="user_42")
    own = (form["code"], form["client_secret"], form["userid"])
    assert (form["response_type"], own) == ("code", (CODE, SECRET, "user_42"))


# The token


@pytest.mark.parametrize("status", [100, 201, 202, 204, 302, 307, 399])
def test_token_comes_with_status_200_only(status: int) -> None:
    with pytest.raises(AIRiskInvalidResponse, match=rf"^AIRisk's token endpoint answered with status {status}\.$"):
        parse_token_response(answer()._replace(status=status), now=NOW)


@pytest.mark.parametrize("token", ["eyJhbGciOiJIUzI1NiJ9.e30.x-_~+/==", "1", "x" * MAX_TOKEN])
def test_every_bearer_token_is_accepted(token: str) -> None:
    assert parse_token_response(answer(access_token=token), now=NOW) == TokenGrant(Secret(token), None)


@pytest.mark.parametrize(
    "token",
    [
        None,
        17,
        True,
        [TOKEN],
        {"value": TOKEN},
        "",
        " ",
        f"{TOKEN}\r\nX-Evil: 1",
        f"{TOKEN} ",
        f"{TOKEN}\n",
        f"{TOKEN}\0",
        f"{TOKEN}ü",
        f"{TOKEN}\x7f",
        f"{TOKEN}=x",
        f'"{TOKEN}"',
        TOKEN + "x" * MAX_TOKEN,
        TOKEN + "x" * 2**20,
    ],
    ids=lambda token: repr(token)[:40],
)
def test_anything_but_a_bearer_token_is_invalid(token: object) -> None:
    with pytest.raises(AIRiskInvalidResponse) as raised:
        parse_token_response(answer(access_token=token), now=NOW)
    assert str(raised.value) == "AIRisk's answer has no usable access_token."
    assert_reveals_nothing(raised.value)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"canary-token"',
        b"<html>",
        b"\xff\xfe",
        b"access_token=canary-token",
        b'{"access_token": "canary-token"',
        b'{"access_token": "canary-token"} x',
        b'{"access_token": "canary-token", "access_token": "other"}',
        b'{"access_token": "canary-token", "a": {"b": 1, "b": 2}}',
        b'{"access_token": "canary-token", "expires_in": NaN}',
        b'{"access_token": "canary-token", "x": -Infinity}',
        b'{"access_token": "canary-token", "expires_in": ' + b"9" * 5000 + b"}",
        b'{"access_token": "canary-token", "a": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
        b'{"a":' * 100_000,
    ],
    ids=lambda body: repr(body[:60]),
)
def test_anything_but_a_json_object_is_invalid(body: bytes) -> None:
    with pytest.raises(AIRiskInvalidResponse) as raised:
        parse_token_response(OAuthResponse(200, body, content_type="application/json"), now=NOW)
    assert str(raised.value) == "AIRisk's answer is not the JSON that its documentation shows."
    assert_reveals_nothing(raised.value)


def test_json_without_a_token_is_invalid() -> None:
    with pytest.raises(AIRiskInvalidResponse) as raised:
        parse_token_response(OAuthResponse(200, b"{}", content_type="application/json"), now=NOW)
    assert str(raised.value) == "AIRisk's answer has no usable access_token."
    assert_reveals_nothing(raised.value)


content_types = st.sampled_from(["application/json", "text/plain", "application/problem+json", "text/html", ""])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(CANARIES)
members = st.sampled_from(["access_token", "expiration", "expires_in", "title", "traceId"]) | st.text()
objects = st.dictionaries(members, scalars | st.lists(scalars, max_size=3) | st.datetimes().map(str))
bodies = st.binary(max_size=300) | st.text().map(lambda text: text.encode("utf-8", "surrogatepass"))
json_bodies = (objects | scalars).map(lambda value: json.dumps(value).encode())


@quickly
@given(statuses, bodies | json_bodies, content_types | st.text(), st.text())
@example(200, b'{"access_token": "t", "expiration": "2025-03-31T13:12:17Z"}', "application/json", "")
def test_any_response_is_a_token_or_our_error(status: int, body: bytes, content_type: str, retry_after: str) -> None:
    reply = OAuthResponse(status, body, content_type=content_type, retry_after=retry_after)
    try:
        grant = parse_token_response(reply, now=NOW, secrets=CANARIES)
    except AIRiskError as error:
        assert_reveals_nothing(error)
    else:
        assert re.fullmatch(r"[\w.~+/-]{1,16384}=*", grant.access_token, re.ASCII)
        assert grant.expires_at is None or NOW < grant.expires_at <= NOW + MAX_LIFE


# When it expires


@pytest.mark.parametrize(
    ("values", "expires_at"),
    [
        ({}, None),
        ({"expiration": None, "expires_in": None}, None),
        ({"expiration": "2025-03-31T13:12:17Z"}, datetime(2025, 3, 31, 13, 12, 17, tzinfo=UTC)),
        ({"expiration": "2025-03-31t13:12:17z"}, datetime(2025, 3, 31, 13, 12, 17, tzinfo=UTC)),
        ({"expiration": "2025-03-31T15:12:17+02:00"}, datetime(2025, 3, 31, 13, 12, 17, tzinfo=UTC)),
        ({"expiration": "2025-03-31T11:42:17-01:30"}, datetime(2025, 3, 31, 13, 12, 17, tzinfo=UTC)),
        ({"expiration": "2025-03-31T13:12:17.5Z"}, datetime(2025, 3, 31, 13, 12, 17, 500_000, tzinfo=UTC)),
        ({"expiration": "2025-03-31T13:12:17"}, datetime(2025, 3, 31, 13, 12, 17, tzinfo=UTC)),
        ({"expiration": "2025-03-31t13:12:17.1234567"}, datetime(2025, 3, 31, 13, 12, 17, 123_456, tzinfo=UTC)),
        ({"expiration": "2025-03-31T12:00:00.000001"}, NOW + timedelta(microseconds=1)),
        ({"expiration": "2025-03-31T13:12:17.1234567Z"}, datetime(2025, 3, 31, 13, 12, 17, 123_456, tzinfo=UTC)),
        ({"expiration": "2025-03-31T12:00:00.000001Z"}, NOW + timedelta(microseconds=1)),
        ({"expiration": "2025-03-31T13:00:00Z", "expires_in": -1}, NOW + timedelta(hours=1)),
        ({"expiration": None, "expires_in": 3600}, NOW + timedelta(hours=1)),
        ({"expires_in": "3600"}, NOW + timedelta(hours=1)),
        ({"expires_in": 0.5}, NOW + timedelta(seconds=0.5)),
        ({"expires_in": MAX_LIFE.total_seconds()}, NOW + MAX_LIFE),
    ],
)
def test_expiry_is_read_in_each_documented_form(values: Any, expires_at: datetime | None) -> None:
    """``expiration`` counts more than ``expires_in``."""
    grant = parse_token_response(answer(**values), now=NOW)
    assert (grant.access_token, grant.expires_at) == (TOKEN, expires_at)
    assert expires_at is None or grant.expires_at.tzinfo is UTC  # type: ignore[union-attr]


def test_expires_in_counts_from_the_given_time() -> None:
    elsewhere = NOW.astimezone(timezone(timedelta(hours=-7)))
    assert parse_token_response(answer(expires_in=60), now=elsewhere).expires_at == NOW + timedelta(minutes=1)


UNREADABLE_TIMES: list[object] = [
    "",
    0,
    1_743_426_737,
    True,
    False,
    [],
    {},
    "tomorrow",
    "2025-03-31T13:12",
    "2025-03-31T13:12:17.12345678",
    "2025-03-31 13:12:17",
    "2025-02-30T13:12:17",
    "2025-03-31",
    "2025-03-31Z",
    "2025-03-31 13:12:17Z",
    "2025-W14-1T13:12:17Z",
    "2025-090T13:12:17Z",
    "20250331T131217Z",
    "2025-03-31T13:12Z",
    "2025-03-31T13:12:17+02",
    "2025-03-31T13:12:17+0200",
    "2025-03-31T13:12:17+24:00",
    "2025-03-31T13:12:17.Z",
    "2025-03-31T13:12:17,5Z",
    "2025-03-31T13:12:17.12345678Z",
    "2025-02-30T13:12:17Z",
    "2025-13-01T13:12:17Z",
    "2025-03-31T24:00:00Z",
    "2025-03-31T25:12:17Z",
    "\u0662\u0660\u0662\u0665-03-31T13:12:17Z",
    "2025-03-31T13:12:17Z\n",
    " 2025-03-31T13:12:17Z",
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
]
UNREADABLE_SECONDS: list[object] = [
    -1e300,
    1e300,
    10**30,
    10**400,
    True,
    False,
    "",
    "-1",
    "1e3",
    " 60",
    "60\n",
    "1_000",
    "\u0666\u0660",
    "9" * 12,
    "9" * 13,
    [60],
    {"seconds": 60},
]
UNBELIEVABLE_TIMES: list[object] = [
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00",
    "9999-12-31T23:59:59Z",
    "9999-12-31T23:59:59.9999999",
    "2025-03-31T11:59:59Z",
    "2025-03-31T12:00:00Z",
    "2035-04-01T12:00:01Z",
]
UNBELIEVABLE_SECONDS: list[object] = [0, -1, MAX_LIFE.total_seconds() + 1, 1e-9, "9" * 10]


def assert_expiry_is_invalid(values: dict[str, object], message: str) -> None:
    with pytest.raises(AIRiskInvalidResponse) as raised:
        parse_token_response(answer(**values), now=NOW)
    assert str(raised.value) == message
    assert_reveals_nothing(raised.value)


@pytest.mark.parametrize(
    "values",
    [*({"expiration": value} for value in UNREADABLE_TIMES), *({"expires_in": value} for value in UNREADABLE_SECONDS)],
    ids=str,
)
def test_unreadable_expiry_is_invalid(values: dict[str, object]) -> None:
    assert_expiry_is_invalid(values, "AIRisk's answer has an expiry that cannot be read.")


@pytest.mark.parametrize(
    "values",
    [
        *({"expiration": value} for value in UNBELIEVABLE_TIMES),
        *({"expires_in": value} for value in UNBELIEVABLE_SECONDS),
    ],
    ids=str,
)
def test_unbelievable_expiry_is_invalid(values: dict[str, object]) -> None:
    assert_expiry_is_invalid(values, "AIRisk's answer has an expiry that is past or too far away.")


def test_number_beyond_every_float_is_invalid() -> None:
    body = b'{"access_token": "canary-token", "expires_in": 1e999}'
    with pytest.raises(AIRiskInvalidResponse):
        parse_token_response(OAuthResponse(200, body), now=NOW)
