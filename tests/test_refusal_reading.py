"""How AIRisk's refusals are read: the reason, the trace id, how long to wait, and nothing of what was sent."""

from collections.abc import Callable

import pytest

from airisk_oauth.exceptions import AIRiskInvalidResponse, AIRiskRefused, AIRiskUnavailable
from airisk_oauth.oauth.messages import OAuthResponse
from airisk_oauth.oauth.refusals import MAX_DEPTH, MAX_RETRY_AFTER
from airisk_oauth.oauth.token import parse_token_response
from tests.support.oauth import (
    CODE,
    NOW,
    SECRET,
    STATE,
    TOKEN,
    TRACE,
    assert_reveals_nothing,
    code_of,
    json_reply,
    problem,
)

#: Both endpoints refuse in the same ways.
READERS: tuple[Callable[[OAuthResponse], object], ...] = (code_of, lambda reply: parse_token_response(reply, now=NOW))


# Reason and trace id


@pytest.mark.parametrize(
    ("reply", "refused"),
    [
        (
            OAuthResponse(400, b"Invalid client_id", content_type="text/plain; charset=utf-8"),
            (400, "Invalid client_id", ""),
        ),
        (OAuthResponse(400, b" Invalid Code\r\n", content_type="text/plain"), (400, "Invalid Code", "")),
        (problem(), (401, "Unauthorized", TRACE)),
        (problem(403, title="Forbidden", traceId=None), (403, "Forbidden", "")),
        (problem()._replace(content_type="application/json"), (401, "Unauthorized", TRACE)),
        (problem()._replace(content_type="text/html"), (401, "", "")),
        (problem()._replace(body=b"{"), (401, "", "")),
        (problem()._replace(body=b"[]"), (401, "", "")),
        (problem(title=["Unauthorized"], traceId=17), (401, "", "")),
        (problem(title=" " + "~" * 119, traceId="|0aZ:._-" * 16), (401, " " + "~" * 119, "|0aZ:._-" * 16)),
        (problem(title="a" * 121, traceId="a" * 129), (401, "", "")),
        (problem(title="<b>\r\nX: y", traceId="00-1\r\nX: y"), (401, "", "")),
        (problem(title="Unauthorisé", traceId="<script>"), (401, "", "")),
        (OAuthResponse(404, b"<html>Not found</html>", content_type="text/html"), (404, "", "")),
        (OAuthResponse(400, b"<html>Bad request</html>", content_type="text/html"), (400, "", "")),
        (OAuthResponse(400, b"Invalid\nCode", content_type="text/plain"), (400, "", "")),
        (OAuthResponse(400, b"Invalid \xff", content_type="text/plain"), (400, "", "")),
        (OAuthResponse(400, b"a" * 2**20, content_type="text/plain"), (400, "", "")),
        (OAuthResponse(499), (499, "", "")),
    ],
)
def test_refusal_keeps_plain_reason_and_trace_id(reply: OAuthResponse, refused: tuple[int, str, str]) -> None:
    for read in READERS:
        with pytest.raises(AIRiskRefused) as raised:
            read(reply)
        assert (raised.value.status, raised.value.reason, raised.value.trace_id) == refused
        # An operator may see them in a repr, too.
        assert repr(raised.value) == f"AIRiskRefused{refused!r}"


@pytest.mark.parametrize(
    ("reply", "refused"),
    [
        (json_reply(), (200, "", "")),
        (OAuthResponse(200, b"{", content_type="application/json"), (200, "", "")),
        (
            json_reply(error="invalid_request", error_description="Invalid userid"),
            (200, "invalid_request: Invalid userid", ""),
        ),
        (json_reply(error_description="Invalid userid", status=400), (400, "Invalid userid", "")),
        (json_reply(title="No", error="access_denied", status=True), (200, "No", "")),
        (json_reply(error="access_denied", status=500), (200, "access_denied", "")),
        (json_reply(error=f"{STATE}", error_description="a\x1b[31m", traceId=STATE), (200, "", "")),
        (json_reply(400, error="access_denied", status=401), (400, "access_denied", "")),
        (OAuthResponse(302, location=f"/e?error={STATE}&error_description=%1B%5B31m&traceId=a%20b"), (302, "", "")),
        (OAuthResponse(302, location="/e?error=no&error_description=Invalid+userid"), (302, "no: Invalid userid", "")),
    ],
)
def test_refusal_in_json_keeps_only_plain_words(reply: OAuthResponse, refused: tuple[int, str, str]) -> None:
    with pytest.raises(AIRiskRefused) as raised:
        code_of(reply)
    assert (raised.value.status, raised.value.reason, raised.value.trace_id) == refused
    assert_reveals_nothing(raised.value)


@pytest.mark.parametrize(
    "reply",
    [
        OAuthResponse(400, f"Invalid Code {CODE}".encode(), content_type="text/plain"),
        OAuthResponse(400, SECRET.encode(), content_type="text/plain"),
        problem(title=f"{SECRET} is wrong", traceId=f"00-{CODE}"),
        problem(title=STATE, traceId=STATE),
    ],
)
def test_refusal_never_repeats_what_was_sent(reply: OAuthResponse) -> None:
    with pytest.raises(AIRiskRefused) as raised:
        parse_token_response(reply, now=NOW, secrets=(CODE, SECRET, STATE, ""))
    assert_reveals_nothing(raised.value)
    assert (raised.value.reason, raised.value.trace_id) == ("", "")


def test_refused_authorization_hides_the_state() -> None:
    with pytest.raises(AIRiskRefused) as raised:
        code_of(problem(title=f"state {STATE}", traceId=STATE))
    assert (raised.value.reason, raised.value.trace_id) == ("", "")


# How long to wait


@pytest.mark.parametrize("status", [429, 500, 502, 503, 599])
@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("17", 17.0),
        ("0", 0.0),
        ("86400", MAX_RETRY_AFTER),
        ("9" * 400, None),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("\u0661\u0667", None),
        ("17\n", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", None),
    ],
)
def test_outage_says_how_long_airisk_asks_to_wait(status: int, header: str, seconds: float | None) -> None:
    reply = problem(status, title=TOKEN)._replace(retry_after=header)
    for read in READERS:
        with pytest.raises(AIRiskUnavailable) as raised:
            read(reply)
        assert str(raised.value) == f"AIRisk answered with status {status}."
        assert raised.value.retry_after == seconds
        assert_reveals_nothing(raised.value)


@pytest.mark.parametrize(
    ("date", "retry_after", "seconds"),
    [
        ("Mon, 31 Mar 2025 11:00:00 GMT", "Mon, 31 Mar 2025 11:00:17 GMT", 17),
        ("Mon, 31 Mar 2025 11:00:00 GMT", "Mon, 31 Mar 2025 13:00:00 GMT", 60),
        ("Mon, 31 Mar 2025 11:00:00 GMT", "Mon, 31 Mar 2025 11:00:00 GMT", None),
        ("", "Mon, 31 Mar 2025 12:00:17 GMT", 17),
        ("yesterday", "Monday, 31-Mar-25 12:00:17 GMT", 17),
        ("", "Mon Mar 31 12:00:17 2025", 17),
        ("", "Fri, 99 Dec 2025 12:00:00 GMT", None),
        ("", "Fri, 31 Dec 9999 23:59:59 -2359", None),
    ],
)
def test_date_to_retry_after_uses_airisks_clock(date: str, retry_after: str, seconds: float | None) -> None:
    reply = OAuthResponse.of(503, {"date": date, "retry-after": retry_after}, b"", now=NOW)
    with pytest.raises(AIRiskUnavailable) as raised:
        parse_token_response(reply, now=NOW)
    assert raised.value.retry_after == seconds


# JSON


def nested(depth: int) -> OAuthResponse:
    """Return an object with lists nested to this depth, and a string that only looks like more of them."""
    inner = '"]}[{\\"' + "[{" * 30 + '"'
    return OAuthResponse(200, f'{{"access_token": "{TOKEN}", "x": {"[" * depth}{inner}{"]" * depth}}}'.encode())


def test_json_is_read_as_deep_as_airisk_nests_it() -> None:
    assert parse_token_response(nested(MAX_DEPTH - 1), now=NOW).access_token == TOKEN


@pytest.mark.parametrize("depth", [MAX_DEPTH, 2000, 20_000])
def test_json_that_is_nested_deeper_is_invalid(depth: int) -> None:
    with pytest.raises(AIRiskInvalidResponse):
        parse_token_response(nested(depth), now=NOW)
