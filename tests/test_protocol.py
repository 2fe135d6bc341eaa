"""AIRisk on paper: exactly what is sent, and that whatever comes back is a valid value or one of our errors."""

import json
import re
import tracemalloc
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airisk_oauth.exceptions import AIRiskError, AIRiskInvalidResponse, AIRiskRefused, AIRiskUnavailable
from airisk_oauth.oauth.authorization import (
    MAX_QUERY,
    Callback,
    MalformedCallback,
    PageShown,
    authorization_url,
    check_not_refused,
    own_page,
    read_authorization,
    read_callback,
)
from airisk_oauth.oauth.calls import response_of
from airisk_oauth.oauth.deployment import Deployment, origin_of
from airisk_oauth.oauth.messages import MAX_BODY, MAX_TOKEN, OAuthRequest, OAuthResponse, Secret, TokenGrant
from airisk_oauth.oauth.refusals import MAX_DEPTH, MAX_RETRY_AFTER
from airisk_oauth.oauth.token import MAX_LIFE, parse_token_response, token_form

NOW = datetime(2025, 3, 31, 12, tzinfo=UTC)
REDIRECT_URI = "https://app.example.com/airisk/callback/"
AIRISK = "https://demo.aicrisk.com"
ENDPOINT = f"{AIRISK}/api/oauth2"
CODE, STATE, TOKEN, SECRET = "canary-code", "canary-state", "canary-token", "canary-secret"
CANARIES = (CODE, STATE, TOKEN, SECRET)
TRACE = "00-676e0f1d2c3b4a59687786a5b4c3d2e1-0123456789abcdef-00"
PROBLEM = {"type": "https://tools.ietf.org/html/rfc9110#section-15.5.2", "title": "Unauthorized", "status": 401}

quickly = settings(max_examples=100, deadline=None)


def answer(**values: Any) -> OAuthResponse:
    """The token endpoint's answer, with these members instead of its usual ones."""
    return OAuthResponse(200, json.dumps({"access_token": TOKEN, **values}).encode(), content_type="application/json")


def problem(status: int = 401, **values: Any) -> OAuthResponse:
    body = json.dumps({**PROBLEM, "traceId": TRACE, **values}).encode()
    return OAuthResponse(status, body, content_type="application/problem+json; charset=utf-8")


def redirect(query: str, target: str = REDIRECT_URI) -> OAuthResponse:
    return OAuthResponse(302, location=f"{target}?{query}")


def code_of(reply: OAuthResponse) -> Secret:
    return read_authorization(reply, endpoint=ENDPOINT, redirect_uri=REDIRECT_URI, state=STATE)


def words(error: BaseException) -> str:
    return f"{error} {error!r} {vars(error)}"


def assert_silent(error: BaseException, canaries: tuple[str, ...] = CANARIES) -> None:
    """An error can be shown and logged as it is."""
    assert len(words(error)) < 1000
    assert words(error).isascii()
    assert words(error).isprintable()
    assert not [canary for canary in canaries if canary in words(error)]
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__


# What is sent


def deployment(**options: Any) -> Deployment:
    required: dict[str, Any] = {"base_url": "https://demo.aicrisk.com", "client_id": "c&1", "client_secret": SECRET}
    return Deployment("default", redirect_uri=REDIRECT_URI, **required, **options)


@pytest.mark.parametrize("userid", ["user_42", "", "ü & ?=/+", None])
def test_the_authorization_url_carries_the_documented_parameters_and_no_other(userid: str | None) -> None:
    endpoint, _, query = authorization_url(deployment(), state=STATE, userid=userid).partition("?")
    sent = [("client_id", "c&1"), ("redirect_uri", REDIRECT_URI), ("state", STATE)]
    assert endpoint == "https://demo.aicrisk.com/api/oauth2"
    assert parse_qsl(query, keep_blank_values=True) == sent + ([] if userid is None else [("userid", userid)])


@pytest.mark.parametrize("userid", ["user_42", None])
def test_the_token_form_carries_the_documented_fields_and_no_other(userid: str | None) -> None:
    sent = {"code": CODE, "client_id": "c&1", "client_secret": SECRET, "redirect_uri": REDIRECT_URI}
    form = token_form(deployment(), code=CODE, userid=userid)
    assert form == (sent if userid is None else {**sent, "userid": userid})


def test_extra_parameters_are_added_and_replace_none_of_the_protocols_own() -> None:
    extra = {"response_type": "code", "state": "evil", "code": "evil", "client_secret": "evil", "userid": "evil"}
    strict = deployment(extra_authorize_params=extra, extra_token_params=extra)
    query = dict(parse_qsl(authorization_url(strict, state=STATE, userid="user_42").partition("?")[2]))
    assert (query["response_type"], query["state"], query["userid"]) == ("code", STATE, "user_42")
    form = token_form(strict, code=CODE, userid="user_42")
    own = (form["code"], form["client_secret"], form["userid"])
    assert (form["response_type"], own) == ("code", (CODE, SECRET, "user_42"))


# What no repr shows


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
def test_no_repr_shows_a_secret(value: object) -> None:
    for shown in (repr(value), f"{value!r:>40}", repr([value]), f"{value!a}"):
        assert not [canary for canary in CANARIES if canary in shown]


def test_a_secret_is_still_the_string_that_it_hides() -> None:
    assert repr(Secret(TOKEN)) == "'[secret]'"
    assert Secret(TOKEN) == TOKEN
    assert f"Bearer {Secret(TOKEN)}" == f"Bearer {TOKEN}"


# What comes back


def test_of_a_response_is_taken_what_counts() -> None:
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


def test_a_body_that_is_too_long_to_read_is_no_token() -> None:
    with pytest.raises(AIRiskInvalidResponse) as raised:
        response_of(200, {"location": CODE}, None, now=NOW)
    assert str(raised.value) == "AIRisk's answer is longer than any token."
    assert_silent(raised.value)


# The callback


@pytest.mark.parametrize(
    ("query", "callback"),
    [
        (f"code={CODE}&state={STATE}", Callback(Secret(STATE), Secret(CODE))),
        (f"state={STATE}&code={CODE}&session_state=x&x", Callback(Secret(STATE), Secret(CODE))),
        ("code=a%2Bb%2F%3D&state=%C3%BC+%26", Callback(Secret("ü &"), Secret("a+b/="))),
        (f"code={CODE}&state=None", Callback(Secret("None"), Secret(CODE))),
        (f"code={CODE}&state=s&iss=https%3A%2F%2Fevil", Callback(Secret("s"), Secret(CODE), iss="https://evil")),
        (f"code={CODE}&state=s&iss=", Callback(Secret("s"), Secret(CODE), iss="")),
        (f"code={CODE}&state=s&" + "a" * (MAX_QUERY - len(CODE) - 14), Callback(Secret("s"), Secret(CODE))),
        (f"code={CODE}&state=s" + "".join(f"&x{number}" for number in range(48)), Callback(Secret("s"), Secret(CODE))),
    ],
)
def test_a_callback_is_read_with_its_state_code_and_issuer(query: str, callback: Callback) -> None:
    assert read_callback(query) == callback


@pytest.mark.parametrize(
    "query",
    [
        "",
        f"code={CODE}",
        f"code={CODE}&state=",
        f"state={STATE}",
        f"state={STATE}&code=",
        f"state={STATE}&code[]={CODE}",
        f"state[]={STATE}&code={CODE}",
        f"code={CODE}&code={CODE}&state={STATE}",
        f"code={CODE}&state={STATE}&state={STATE}",
        f"code={CODE}&state={STATE}&iss=a&iss=b",
        f"code={CODE}&state={STATE}&%73tate={STATE}",
        f"code={CODE}&error=access_denied&state={STATE}",
        f"code={CODE}&error=&state={STATE}",
        "error=access_denied",
        f"error=a&error=b&state={STATE}",
        f"code={CODE}%00&state={STATE}",
        f"code={CODE}%0D%0A&state={STATE}",
        f"code=two words&state={STATE}",
        f"code={CODE}%C3%BC&state={STATE}",
        f"code={CODE}&state=%FF",
        f"code={CODE}&state=%ED%A0%80",
        f"code={CODE}&state={STATE}ü",
        f"code={CODE}&state={STATE}\udcff",
        f"code={CODE}&state={STATE}" + "".join(f"&x{number}" for number in range(49)),
        f"code={CODE}&state={STATE}&x=" + "x" * MAX_QUERY,
        "a" * 2**20,
    ],
    ids=lambda query: query[:60].encode("ascii", "backslashreplace").decode() or "empty",
)
def test_a_query_that_airisk_cannot_have_sent_is_malformed(query: str) -> None:
    with pytest.raises(MalformedCallback) as raised:
        read_callback(query)
    assert_silent(raised.value)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        *(
            (error, error)
            for error in (
                "access_denied",
                "invalid_request",
                "invalid_scope",
                "server_error",
                "temporarily_unavailable",
                "unauthorized_client",
                "unsupported_response_type",
            )
        ),
        ("invalid_client", ""),
        ("", ""),
        ("Access_Denied", ""),
        ("<script>alert(1)</script>", ""),
        ("access_denied\r\nSet-Cookie: a=b", ""),
        (CODE, ""),
    ],
)
def test_only_the_standards_own_error_codes_are_repeated(error: str, reason: str) -> None:
    described = {"error_description": "<b>\r\nX: y</b>", "error_uri": "javascript:alert(1)"}
    callback = read_callback(urlencode({"error": error, "state": STATE, "iss": "https://a.example", **described}))
    assert isinstance(callback.answer, AIRiskRefused)
    assert (callback.state, callback.iss) == (STATE, "https://a.example")
    assert (callback.answer.status, callback.answer.reason, callback.answer.trace_id) == (302, reason, "")
    assert "script" not in words(callback.answer)
    assert_silent(callback.answer)


# The authorization endpoint


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308, 399])
def test_a_redirect_to_us_with_our_state_brings_the_code(status: int) -> None:
    assert code_of(redirect(f"code={CODE}&state={STATE}&next=/?")._replace(status=status)) == CODE


@pytest.mark.parametrize(
    "reply",
    [
        OAuthResponse(200, b"<html>Allow?</html>", content_type="text/html"),
        OAuthResponse(204),
        OAuthResponse(302),
        OAuthResponse(200, location=f"{REDIRECT_URI}?code={CODE}&state={STATE}"),
        OAuthResponse(299, location=f"{REDIRECT_URI}?code={CODE}&state={STATE}"),
        OAuthResponse(302, location=""),
        OAuthResponse(302, location="/login?code=1&state=2"),
        OAuthResponse(302, location="/login?error="),
        OAuthResponse(302, location="/login?ReturnUrl=%2Fapi%2Foauth2%3Ferror%3Dx"),
        OAuthResponse(302, location="https://login.example/?error=access_denied"),
        OAuthResponse(302, location="https://[?error=access_denied"),
        OAuthResponse(302, b"{}", location="/login", content_type="application/json"),
        OAuthResponse(200, b"{}", content_type="text/plain"),
        *(
            redirect(f"code={CODE}&state={STATE}", target)
            for target in (
                "https://evil.example/",
                "//app.example.com/airisk/callback/",
                REDIRECT_URI.upper(),
                REDIRECT_URI.rstrip("/"),
                REDIRECT_URI + "x",
                REDIRECT_URI + "#",
                REDIRECT_URI.replace("https", "http"),
                REDIRECT_URI.replace("://", "://user@"),
                f" {REDIRECT_URI}",
            )
        ),
    ],
    ids=lambda reply: f"{reply.status} {reply.location or ''}",
)
def test_a_page_or_a_redirect_elsewhere_asks_for_a_person(reply: OAuthResponse) -> None:
    with pytest.raises(PageShown) as raised:
        code_of(reply)
    assert_silent(raised.value)


UNREADABLE = "AIRisk's redirect cannot be read."
NO_STATE = "AIRisk's redirect has no state, although one was sent."
ANOTHER_STATE = "AIRisk's redirect has another state than the one that was sent."


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (f"code={CODE}&state=another", ANOTHER_STATE),
        (f"code={CODE}&state={STATE}x", ANOTHER_STATE),
        (f"code={CODE}", NO_STATE),
        (f"code={CODE}&state=", NO_STATE),
        (f"code={CODE}&state={STATE}&state={STATE}", UNREADABLE),
        (f"state={STATE}", UNREADABLE),
        (f"code={CODE}&x=" + "x" * MAX_QUERY, UNREADABLE),
        (f"code={CODE}" + "".join(f"&x{number}=1" for number in range(50)), UNREADABLE),
        ("", UNREADABLE),
        ("%FF", UNREADABLE),
    ],
)
def test_a_redirect_to_us_with_another_state_or_none_to_read_is_invalid(query: str, said: str) -> None:
    with pytest.raises(AIRiskInvalidResponse) as raised:
        code_of(redirect(query))
    assert str(raised.value) == said
    assert_silent(raised.value)


def test_another_state_comes_before_the_error_that_is_with_it() -> None:
    with pytest.raises(AIRiskInvalidResponse):
        code_of(redirect("error=access_denied&state=another"))
    for query in (f"error=access_denied&state={STATE}", "error=access_denied"):
        with pytest.raises(AIRiskRefused, match="access_denied"):
            code_of(redirect(query))


def test_a_status_that_refuses_counts_more_than_a_location() -> None:
    with pytest.raises(AIRiskRefused) as raised:
        code_of(problem()._replace(location=f"{REDIRECT_URI}?code={CODE}&state={STATE}"))
    assert (raised.value.status, raised.value.reason, raised.value.trace_id) == (401, "Unauthorized", TRACE)


@pytest.mark.parametrize(
    "reply",
    [
        problem()._replace(status=200),
        *(
            OAuthResponse(302, location=f"{place}?error=Unauthorized&traceId={TRACE}")
            for place in (
                "/api/oauth2/Error",
                "Error",
                f"{AIRISK}/Error",
                f"{AIRISK.upper()}:443/e",
                "//demo.aicrisk.com/",
            )
        ),
    ],
    ids=lambda reply: f"{reply.status} {reply.location or ''}",
)
def test_json_or_own_error_address_is_a_refusal(reply: OAuthResponse) -> None:
    with pytest.raises(AIRiskRefused) as raised:
        code_of(reply)
    status = 401 if reply.status == 200 else 302
    assert (raised.value.status, raised.value.reason, raised.value.trace_id) == (status, "Unauthorized", TRACE)
    assert_silent(raised.value)


def json_reply(http_status: int = 200, **members: Any) -> OAuthResponse:
    return OAuthResponse(http_status, json.dumps(members).encode(), content_type="application/json")


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
    assert_silent(raised.value)


@pytest.mark.parametrize(
    ("location", "looked_at"),
    [
        ("/Error/7?x=y#z", f"{AIRISK}/Error/7?x=y"),
        ("Error", f"{AIRISK}/api/Error"),
        (f"{AIRISK.upper()}:443//Error", f"{AIRISK}//Error"),
        ("/login?error=", f"{AIRISK}/login?error="),
        ("/Error?error=access_denied", None),
        (f"/callback?code={CODE}&state={STATE}", None),
        ("?again", None),
        (ENDPOINT, None),
        ("/two words", None),
        ("/\x1b[31m", None),
        ("/\xe9", None),
        ("/" + "x" * MAX_QUERY, None),
        ("https://login.example/", None),
        ("http://demo.aicrisk.com/Error", None),
        ("https://demo.aicrisk.com:444/Error", None),
        ("https://user@demo.aicrisk.com/Error", None),
        ("https://[", None),
        (f"{REDIRECT_URI}?code={CODE}", None),
        ("", None),
        (None, None),
    ],
)
def test_only_a_page_of_airisks_own_is_looked_at(location: str | None, looked_at: str | None) -> None:
    assert own_page(OAuthResponse(302, location=location), endpoint=ENDPOINT, redirect_uri=REDIRECT_URI) == looked_at
    assert own_page(OAuthResponse(200, location=location), endpoint=ENDPOINT, redirect_uri=REDIRECT_URI) is None


def test_redirect_uri_on_airisks_host_is_no_page() -> None:
    ours = f"{AIRISK}/airisk/callback/"
    for query in ("", "?x=y", "?x=y?z"):
        assert own_page(OAuthResponse(302, location=ours + query), endpoint=ENDPOINT, redirect_uri=ours) is None


@pytest.mark.parametrize(("status", "is_redirect"), [(299, False), (300, True), (399, True), (400, False)])
def test_every_redirect_and_no_other_leads_on(status: int, is_redirect: bool) -> None:
    reply = OAuthResponse(status, b"{}", location="/Error", content_type="application/json")
    page = own_page(reply, endpoint=ENDPOINT, redirect_uri=REDIRECT_URI)
    assert page == (f"{AIRISK}/Error" if is_redirect else None)
    if is_redirect:
        check_not_refused(reply, secrets=())
    else:
        with pytest.raises(AIRiskRefused):
            check_not_refused(reply, secrets=())


def test_addresses_are_read_up_to_their_limit() -> None:
    longest = "/" + "x" * (MAX_QUERY - len(AIRISK) - 1)
    assert (
        own_page(OAuthResponse(302, location=longest), endpoint=ENDPOINT, redirect_uri=REDIRECT_URI) == AIRISK + longest
    )
    query = "error=no&x=" + "x" * (MAX_QUERY - 11)
    with pytest.raises(AIRiskRefused):
        code_of(OAuthResponse(302, location=f"/Error?{query}"))
    with pytest.raises(PageShown):
        code_of(OAuthResponse(302, location=f"/Error?{query}x"))


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (OAuthResponse(200, b"<html>", content_type="text/html"), None),
        (OAuthResponse(401, b"<html>", content_type="text/html"), None),
        (OAuthResponse(302, location="/login"), None),
        (OAuthResponse(302, b"{}", location="/login", content_type="application/json"), None),
        (OAuthResponse(200, b"Sign in", content_type="text/plain"), None),
        (OAuthResponse(400, b"Invalid userid", content_type="text/plain"), AIRiskRefused),
        (OAuthResponse(302, b"{}", content_type="application/json"), AIRiskRefused),
        (problem(), AIRiskRefused),
        (OAuthResponse(429, b"<html>", content_type="text/html"), AIRiskUnavailable),
        (OAuthResponse(500, b"<html>", content_type="text/html"), AIRiskUnavailable),
        (OAuthResponse(499, b"<html>", content_type="text/html"), None),
        (problem(429), AIRiskUnavailable),
    ],
)
def test_page_that_is_no_refusal_is_let_pass(reply: OAuthResponse, error: type[AIRiskError] | None) -> None:
    if error is None:
        check_not_refused(reply, secrets=(STATE,))
    else:
        with pytest.raises(error) as raised:
            check_not_refused(reply, secrets=(STATE,))
        assert_silent(raised.value)


# The token endpoint: what it says no with


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
def test_a_refusal_keeps_status_reason_and_trace_where_they_are_plain(
    reply: OAuthResponse, refused: tuple[int, str, str]
) -> None:
    for read in (code_of, lambda reply: parse_token_response(reply, now=NOW)):
        with pytest.raises(AIRiskRefused) as raised:
            read(reply)
        assert (raised.value.status, raised.value.reason, raised.value.trace_id) == refused
        # An operator may see it in a repr, too.
        assert repr(raised.value) == f"AIRiskRefused{refused!r}"


@pytest.mark.parametrize(
    "reply",
    [
        OAuthResponse(400, f"Invalid Code {CODE}".encode(), content_type="text/plain"),
        OAuthResponse(400, SECRET.encode(), content_type="text/plain"),
        problem(title=f"{SECRET} is wrong", traceId=f"00-{CODE}"),
        problem(title=STATE, traceId=STATE),
    ],
)
def test_a_refusal_never_repeats_what_was_sent(reply: OAuthResponse) -> None:
    with pytest.raises(AIRiskRefused) as raised:
        parse_token_response(reply, now=NOW, secrets=(CODE, SECRET, STATE, ""))
    assert_silent(raised.value)
    assert (raised.value.reason, raised.value.trace_id) == ("", "")


def test_a_refused_authorization_never_repeats_the_state() -> None:
    with pytest.raises(AIRiskRefused) as raised:
        code_of(problem(title=f"state {STATE}", traceId=STATE))
    assert (raised.value.reason, raised.value.trace_id) == ("", "")


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
def test_an_outage_says_how_long_airisk_asked_to_wait(status: int, header: str, seconds: float | None) -> None:
    reply = problem(status, title=TOKEN)._replace(retry_after=header)
    for read in (code_of, lambda reply: parse_token_response(reply, now=NOW)):
        with pytest.raises(AIRiskUnavailable) as raised:
            read(reply)
        assert str(raised.value) == f"AIRisk answered with status {status}."
        assert raised.value.retry_after == seconds
        assert_silent(raised.value)


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
def test_date_to_retry_after_counts_from_airisk_s(date: str, retry_after: str, seconds: float | None) -> None:
    reply = OAuthResponse.of(503, {"date": date, "retry-after": retry_after}, b"", now=NOW)
    with pytest.raises(AIRiskUnavailable) as raised:
        parse_token_response(reply, now=NOW)
    assert raised.value.retry_after == seconds


# The token endpoint: the token


def nested(depth: int) -> OAuthResponse:
    """An object that holds so many more within one another."""
    inner = '"]}[{\\"' + "[{" * 30 + '"'
    return OAuthResponse(200, f'{{"access_token": "{TOKEN}", "x": {"[" * depth}{inner}{"]" * depth}}}'.encode())


def test_json_nests_as_deep_as_airisk_needs_only() -> None:
    assert parse_token_response(nested(MAX_DEPTH - 1), now=NOW).access_token == TOKEN
    for depth in (MAX_DEPTH, 2000, 20_000):
        with pytest.raises(AIRiskInvalidResponse):
            parse_token_response(nested(depth), now=NOW)


@pytest.mark.parametrize("status", [100, 201, 202, 204, 302, 307, 399])
def test_a_token_comes_with_status_200_only(status: int) -> None:
    with pytest.raises(AIRiskInvalidResponse, match=rf"^AIRisk's token endpoint answered with status {status}\.$"):
        parse_token_response(answer()._replace(status=status), now=NOW)


@pytest.mark.parametrize("token", ["eyJhbGciOiJIUzI1NiJ9.e30.x-_~+/==", "1", "x" * MAX_TOKEN])
def test_a_token_is_opaque(token: str) -> None:
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
def test_what_is_no_bearer_token_is_refused(token: object) -> None:
    with pytest.raises(AIRiskInvalidResponse) as raised:
        parse_token_response(answer(access_token=token), now=NOW)
    assert str(raised.value) == "AIRisk's answer has no usable access_token."
    assert_silent(raised.value)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b'"canary-token"',
        b"{}",
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
def test_anything_but_one_plain_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(AIRiskInvalidResponse) as raised:
        parse_token_response(OAuthResponse(200, body, content_type="application/json"), now=NOW)
    said = {b"{}": "AIRisk's answer has no usable access_token."}
    assert str(raised.value) == said.get(body, "AIRisk's answer is not the JSON that its documentation shows.")
    assert_silent(raised.value)


# The token endpoint: its end


@pytest.mark.parametrize(
    ("values", "end"),
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
def test_the_end_is_read_in_each_documented_form_expiration_first(values: Any, end: datetime | None) -> None:
    grant = parse_token_response(answer(**values), now=NOW)
    assert (grant.access_token, grant.expires_at) == (TOKEN, end)
    assert end is None or grant.expires_at.tzinfo is UTC  # type: ignore[union-attr]


def test_expires_in_counts_from_the_moment_that_is_given() -> None:
    elsewhere = NOW.astimezone(timezone(timedelta(hours=-7)))
    assert parse_token_response(answer(expires_in=60), now=elsewhere).expires_at == NOW + timedelta(minutes=1)


NO_END: list[object] = [
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
NO_BELIEVABLE_END: list[object] = [
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00",
    "9999-12-31T23:59:59Z",
    "9999-12-31T23:59:59.9999999",
    "2025-03-31T11:59:59Z",
    "2025-03-31T12:00:00Z",
    "2035-04-01T12:00:01Z",
]
NO_BELIEVABLE_LIFE: list[object] = [0, -1, MAX_LIFE.total_seconds() + 1, 1e-9, "9" * 10]
NO_LIFE: list[object] = [
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


@pytest.mark.parametrize(
    ("values", "said"),
    [
        *(({"expiration": value}, "cannot be read") for value in NO_END),
        *(({"expires_in": value}, "cannot be read") for value in NO_LIFE),
        *(({"expiration": value}, "is past or too far away") for value in NO_BELIEVABLE_END),
        *(({"expires_in": value}, "is past or too far away") for value in NO_BELIEVABLE_LIFE),
    ],
    ids=str,
)
def test_an_end_that_is_malformed_past_or_too_far_away_is_refused(values: Any, said: str) -> None:
    with pytest.raises(AIRiskInvalidResponse) as raised:
        parse_token_response(answer(**values), now=NOW)
    assert str(raised.value) == f"AIRisk's answer has an expiry that {said}."
    assert_silent(raised.value)


def test_a_number_beyond_every_float_is_refused() -> None:
    body = b'{"access_token": "canary-token", "expires_in": 1e999}'
    with pytest.raises(AIRiskInvalidResponse):
        parse_token_response(OAuthResponse(200, body), now=NOW)


# Origins


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
def test_an_origin_is_scheme_host_and_port_of_a_web_address(url: str, origin: tuple[str, str, int] | None) -> None:
    assert origin_of(url) == origin


# Whatever comes: a valid value or one of our errors

statuses = st.sampled_from([200, 200, 200, 302, 400, 401, 429, 500, 503]) | st.integers(100, 999)
content_types = st.sampled_from(["application/json", "text/plain", "application/problem+json", "text/html", ""])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(CANARIES)
members = st.sampled_from(["access_token", "expiration", "expires_in", "title", "traceId"]) | st.text()
objects = st.dictionaries(members, scalars | st.lists(scalars, max_size=3) | st.datetimes().map(str))
bodies = st.binary(max_size=300) | st.text().map(lambda text: text.encode("utf-8", "surrogatepass"))
json_bodies = (objects | scalars).map(lambda value: json.dumps(value).encode())


@quickly
@given(statuses, bodies | json_bodies, content_types | st.text(), st.text())
@example(200, b'{"access_token": "t", "expiration": "2025-03-31T13:12:17Z"}', "application/json", "")
def test_any_token_response_is_a_valid_grant_or_our_error(
    status: int, body: bytes, content_type: str, retry_after: str
) -> None:
    reply = OAuthResponse(status, body, content_type=content_type, retry_after=retry_after)
    try:
        grant = parse_token_response(reply, now=NOW, secrets=CANARIES)
    except AIRiskError as error:
        assert_silent(error)
    else:
        assert re.fullmatch(r"[\w.~+/-]{1,16384}=*", grant.access_token, re.ASCII)
        assert grant.expires_at is None or NOW < grant.expires_at <= NOW + MAX_LIFE


near_locations = st.builds(
    lambda target, pairs, rest: f"{target}?{urlencode(pairs)}{rest}",
    st.sampled_from([REDIRECT_URI, "https://evil.example/", "/Error", ENDPOINT]),
    st.lists(
        st.tuples(st.sampled_from(["code", "state", "error", "iss"]), st.sampled_from([CODE, STATE]) | st.text("a&=%é"))
    ),
    st.sampled_from(["", "#", "&", "%"]),
)


@quickly
@given(statuses | st.integers(300, 399), near_locations | st.text() | st.none())
@example(302, f"{REDIRECT_URI}?code={CODE}&state={STATE}")
def test_any_authorization_redirect_is_a_code_for_our_state_or_our_error(status: int, location: str | None) -> None:
    reply = OAuthResponse(status, location=location)
    page = own_page(reply, endpoint=ENDPOINT, redirect_uri=REDIRECT_URI)
    assert page is None or re.fullmatch(rf"{AIRISK}/[!-~]*", page)
    try:
        code = code_of(reply)
    except (AIRiskError, PageShown) as error:
        # A reason that AIRisk gives on its own pages is repeated; what else it holds than the state is AIRisk's affair.
        assert_silent(error, CANARIES if str(location).startswith(REDIRECT_URI) else (STATE,))
    else:
        assert str(location).startswith(f"{REDIRECT_URI}?")
        assert quote(STATE) in str(location)
        assert re.fullmatch(r"[!-~]+", code)


callback_pairs = st.lists(
    st.tuples(st.sampled_from(["code", "state", "error", "iss", "code[]"]), st.text(max_size=20)), max_size=5
)


@quickly
@given(st.text() | callback_pairs.map(lambda pairs: urlencode(pairs, errors="replace")))
@example(f"code={CODE}&state={STATE}")
def test_any_callback_query_is_a_valid_callback_or_malformed(query: str) -> None:
    try:
        callback = read_callback(query)
    except MalformedCallback as error:
        assert_silent(error)
    else:
        assert callback.state
        if isinstance(callback.answer, AIRiskRefused):
            assert re.fullmatch("[a-z_]*", callback.answer.reason)
        else:
            assert re.fullmatch(r"[!-~]+", callback.answer)


def test_what_is_read_and_believed_is_bounded() -> None:
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
def test_the_worst_that_can_come_costs_little_memory(read: Any) -> None:
    tracemalloc.start()
    try:
        with pytest.raises((AIRiskError, MalformedCallback)):
            read()
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()
