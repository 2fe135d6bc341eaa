"""AIRisk's authorization endpoint: its URL, the callback, and what it answers to our own server."""

import re
from urllib.parse import parse_qsl, quote, urlencode

import pytest
from hypothesis import example, given
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
    read_callback,
)
from airisk_oauth.oauth.messages import OAuthResponse, Secret
from tests.support.oauth import (
    AIRISK,
    CANARIES,
    CODE,
    ENDPOINT,
    REDIRECT_URI,
    STATE,
    TRACE,
    assert_reveals_nothing,
    code_of,
    deployment,
    problem,
    quickly,
    redirect,
    shown,
    statuses,
)

# The URL


@pytest.mark.parametrize("userid", ["user_42", "", "ü & ?=/+", None])
def test_authorization_url_is_as_documented(userid: str | None) -> None:
    endpoint, _, query = authorization_url(deployment(), state=STATE, userid=userid).partition("?")
    sent = [("client_id", "c&1"), ("redirect_uri", REDIRECT_URI), ("state", STATE)]
    assert endpoint == "https://demo.aicrisk.com/api/oauth2"
    assert parse_qsl(query, keep_blank_values=True) == sent + ([] if userid is None else [("userid", userid)])


def test_extra_parameters_cannot_replace_our_own() -> None:
    extra = {"response_type": "code", "state": "evil", "userid": "evil"}
    url = authorization_url(deployment(extra_authorize_params=extra), state=STATE, userid="user_42")
    query = dict(parse_qsl(url.partition("?")[2]))
    assert (query["response_type"], query["state"], query["userid"]) == ("code", STATE, "user_42")


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
def test_callback_is_read_with_code_and_issuer(query: str, callback: Callback) -> None:
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
        f"code=two shown&state={STATE}",
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
def test_query_airisk_cannot_send_is_malformed(query: str) -> None:
    with pytest.raises(MalformedCallback) as raised:
        read_callback(query)
    assert_reveals_nothing(raised.value)


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
def test_only_standard_error_codes_are_repeated(error: str, reason: str) -> None:
    described = {"error_description": "<b>\r\nX: y</b>", "error_uri": "javascript:alert(1)"}
    callback = read_callback(urlencode({"error": error, "state": STATE, "iss": "https://a.example", **described}))
    assert isinstance(callback.answer, AIRiskRefused)
    assert (callback.state, callback.iss) == (STATE, "https://a.example")
    assert (callback.answer.status, callback.answer.reason, callback.answer.trace_id) == (302, reason, "")
    assert "script" not in shown(callback.answer)
    assert_reveals_nothing(callback.answer)


callback_pairs = st.lists(
    st.tuples(st.sampled_from(["code", "state", "error", "iss", "code[]"]), st.text(max_size=20)), max_size=5
)


@quickly
@given(st.text() | callback_pairs.map(lambda pairs: urlencode(pairs, errors="replace")))
@example(f"code={CODE}&state={STATE}")
def test_any_callback_is_valid_or_malformed(query: str) -> None:
    try:
        callback = read_callback(query)
    except MalformedCallback as error:
        assert_reveals_nothing(error)
    else:
        assert callback.state
        if isinstance(callback.answer, AIRiskRefused):
            assert re.fullmatch("[a-z_]*", callback.answer.reason)
        else:
            assert re.fullmatch(r"[!-~]+", callback.answer)


# The response to our own server


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308, 399])
def test_redirect_with_our_state_gives_the_code(status: int) -> None:
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
def test_page_or_other_redirect_requires_a_person(reply: OAuthResponse) -> None:
    with pytest.raises(PageShown) as raised:
        code_of(reply)
    assert_reveals_nothing(raised.value)


UNREADABLE = "AIRisk's redirect cannot be read."
NO_STATE = "AIRisk's redirect has no state, although one was sent."
ANOTHER_STATE = "AIRisk's redirect has another state than the one that was sent."


@pytest.mark.parametrize(
    ("query", "message"),
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
def test_redirect_without_our_state_is_invalid(query: str, message: str) -> None:
    with pytest.raises(AIRiskInvalidResponse) as raised:
        code_of(redirect(query))
    assert str(raised.value) == message
    assert_reveals_nothing(raised.value)


def test_wrong_state_counts_more_than_an_error() -> None:
    with pytest.raises(AIRiskInvalidResponse):
        code_of(redirect("error=access_denied&state=another"))


@pytest.mark.parametrize("query", [f"error=access_denied&state={STATE}", "error=access_denied"])
def test_error_is_believed_without_a_state(query: str) -> None:
    with pytest.raises(AIRiskRefused, match="access_denied"):
        code_of(redirect(query))


def test_error_status_counts_more_than_a_location() -> None:
    with pytest.raises(AIRiskRefused) as raised:
        code_of(problem()._replace(location=f"{REDIRECT_URI}?code={CODE}&state={STATE}"))
    assert (raised.value.status, raised.value.reason, raised.value.trace_id) == (401, "Unauthorized", TRACE)


def test_json_with_status_200_is_a_refusal() -> None:
    with pytest.raises(AIRiskRefused) as raised:
        code_of(problem()._replace(status=200))
    assert (raised.value.status, raised.value.reason, raised.value.trace_id) == (401, "Unauthorized", TRACE)
    assert_reveals_nothing(raised.value)


@pytest.mark.parametrize(
    "page",
    ["/api/oauth2/Error", "Error", f"{AIRISK}/Error", f"{AIRISK.upper()}:443/e", "//demo.aicrisk.com/"],
)
def test_error_address_on_airisk_is_a_refusal(page: str) -> None:
    with pytest.raises(AIRiskRefused) as raised:
        code_of(OAuthResponse(302, location=f"{page}?error=Unauthorized&traceId={TRACE}"))
    assert (raised.value.status, raised.value.reason, raised.value.trace_id) == (302, "Unauthorized", TRACE)
    assert_reveals_nothing(raised.value)


def test_error_address_has_a_maximum_length() -> None:
    query = "error=no&x=" + "x" * (MAX_QUERY - 11)
    with pytest.raises(AIRiskRefused):
        code_of(OAuthResponse(302, location=f"/Error?{query}"))
    with pytest.raises(PageShown):
        code_of(OAuthResponse(302, location=f"/Error?{query}x"))


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
def test_any_redirect_is_our_code_or_our_error(status: int, location: str | None) -> None:
    reply = OAuthResponse(status, location=location)
    page = own_page(reply, endpoint=ENDPOINT, redirect_uri=REDIRECT_URI)
    assert page is None or re.fullmatch(rf"{AIRISK}/[!-~]*", page)
    try:
        code = code_of(reply)
    except (AIRiskError, PageShown) as error:
        # The reason on a page of AIRisk's own is repeated. It can hold no secret of ours except the state.
        assert_reveals_nothing(error, CANARIES if str(location).startswith(REDIRECT_URI) else (STATE,))
    else:
        assert str(location).startswith(f"{REDIRECT_URI}?")
        assert quote(STATE) in str(location)
        assert re.fullmatch(r"[!-~]+", code)


# The page that AIRisk redirects to


@pytest.mark.parametrize(
    ("location", "requested"),
    [
        ("/Error/7?x=y#z", f"{AIRISK}/Error/7?x=y"),
        ("Error", f"{AIRISK}/api/Error"),
        (f"{AIRISK.upper()}:443//Error", f"{AIRISK}//Error"),
        ("/login?error=", f"{AIRISK}/login?error="),
        ("/Error?error=access_denied", None),
        (f"/callback?code={CODE}&state={STATE}", None),
        ("?again", None),
        (ENDPOINT, None),
        ("/two shown", None),
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
def test_only_a_page_on_airisk_is_requested(location: str | None, requested: str | None) -> None:
    assert own_page(OAuthResponse(302, location=location), endpoint=ENDPOINT, redirect_uri=REDIRECT_URI) == requested
    assert own_page(OAuthResponse(200, location=location), endpoint=ENDPOINT, redirect_uri=REDIRECT_URI) is None


def test_callback_on_airisk_is_not_requested() -> None:
    ours = f"{AIRISK}/airisk/callback/"
    for query in ("", "?x=y", "?x=y?z"):
        assert own_page(OAuthResponse(302, location=ours + query), endpoint=ENDPOINT, redirect_uri=ours) is None


def test_longest_page_address_is_requested() -> None:
    longest = "/" + "x" * (MAX_QUERY - len(AIRISK) - 1)
    page = own_page(OAuthResponse(302, location=longest), endpoint=ENDPOINT, redirect_uri=REDIRECT_URI)
    assert page == AIRISK + longest


def reply_with_a_location(status: int) -> OAuthResponse:
    return OAuthResponse(status, b"{}", location="/Error", content_type="application/json")


@pytest.mark.parametrize("status", [300, 399])
def test_redirect_leads_to_a_page(status: int) -> None:
    reply = reply_with_a_location(status)
    assert own_page(reply, endpoint=ENDPOINT, redirect_uri=REDIRECT_URI) == f"{AIRISK}/Error"
    check_not_refused(reply, secrets=())


@pytest.mark.parametrize("status", [299, 400])
def test_location_without_a_redirect_is_ignored(status: int) -> None:
    reply = reply_with_a_location(status)
    assert own_page(reply, endpoint=ENDPOINT, redirect_uri=REDIRECT_URI) is None
    with pytest.raises(AIRiskRefused):
        check_not_refused(reply, secrets=())


@pytest.mark.parametrize(
    "reply",
    [
        OAuthResponse(200, b"<html>", content_type="text/html"),
        OAuthResponse(401, b"<html>", content_type="text/html"),
        OAuthResponse(302, location="/login"),
        OAuthResponse(302, b"{}", location="/login", content_type="application/json"),
        OAuthResponse(200, b"Sign in", content_type="text/plain"),
        OAuthResponse(499, b"<html>", content_type="text/html"),
    ],
)
def test_page_that_is_no_refusal_is_passed(reply: OAuthResponse) -> None:
    check_not_refused(reply, secrets=(STATE,))


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (OAuthResponse(400, b"Invalid userid", content_type="text/plain"), AIRiskRefused),
        (OAuthResponse(302, b"{}", content_type="application/json"), AIRiskRefused),
        (problem(), AIRiskRefused),
        (OAuthResponse(429, b"<html>", content_type="text/html"), AIRiskUnavailable),
        (OAuthResponse(500, b"<html>", content_type="text/html"), AIRiskUnavailable),
        (problem(429), AIRiskUnavailable),
    ],
)
def test_page_that_is_a_refusal_is_raised(reply: OAuthResponse, error: type[AIRiskError]) -> None:
    with pytest.raises(error) as raised:
        check_not_refused(reply, secrets=(STATE,))
    assert_reveals_nothing(raised.value)
