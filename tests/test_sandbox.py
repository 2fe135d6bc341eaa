"""The sandbox keeps what AIRisk's documentation says, errors included, and stays out of production."""

import ast
import html
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urljoin

import pytest
from django.core import checks
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import include, path, reverse

from airisk_oauth.sandbox import control
from airisk_oauth.sandbox.chat import Chats
from airisk_oauth.sandbox.world import JOURNAL_LENGTH, REFUSALS, Caller, JournalEntry, Switches, World, world
from tests.support.threads import at_once

if TYPE_CHECKING:
    from pytest_django import Settings

CALLBACK = "https://app.example.com/airisk/callback/"
OTHER_CALLBACK = "https://app.example.com/elsewhere/"
STATE = "a b&c=<é>\"'+%2F"
NOON = datetime(2025, 3, 31, 12, tzinfo=UTC).timestamp()
#: The first conversation of user_42, whose id is always the same.
CONVERSATION = Chats("user_42", NOON).conversations(str)[0]["id"]
ABOUT_ONE = {"get_conversation", "add_file"}
POST = {"consent", "token", "create_conversation", "ask_agent", "add_file", "submit_feedback"}
API = ["get_conversations", "list_agents", "list_conversations", *sorted(ABOUT_ONE | POST - {"consent", "token"})]
AIRISK = ["authorize", "consent", "token", "error", *API]
LOGIN_REQUIRED = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
]

# For the one test that mounts the sandbox somewhere else.
urlpatterns = [path("deep/down/", include("airisk_oauth.sandbox.urls"))]


@pytest.fixture(autouse=True)
def airisk(settings: "Settings") -> Iterator[None]:
    settings.AIRISK_OAUTH_SANDBOX = True
    settings.AIRISK_OAUTH_SANDBOX_CLIENTS = {
        "client-1": {"client_secret": "secret-1", "redirect_uris": f"{CALLBACK}, {OTHER_CALLBACK}"},
        "client-2": {"client_secret": "secret-2", "redirect_uris": CALLBACK},
    }
    settings.AIRISK_OAUTH_SANDBOX_USERS = None
    world.reset()
    yield
    world.reset()


def address(name: str) -> str:
    return reverse(f"airisk_sandbox:{name}", args=[CONVERSATION] if name in ABOUT_ONE else [])


def call(client: Client, name: str, data: Any = None, *, token: str | None = None, **extra: Any) -> Any:
    """Call a view by name, with the method it is made for."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    send = client.post if name in POST else client.get
    return send(address(name), {} if data is None else data, headers=headers, **extra)


def call_rightly(client: Client, name: str, token: str) -> Any:
    """Call the API with what this call needs."""
    chats = world.chats_of("user_42")
    found = chats.find(CONVERSATION, str)
    assert found is not None
    if name == "submit_feedback":
        given = {"conversationId": CONVERSATION, "messageId": found["messages"][0]["id"], "feedback": "Like"}
        return call(client, name, token=token, query_params=given)
    data: dict[str, Any] = {
        "create_conversation": {"title": "A plan", "agentId": found["botID"]},
        "ask_agent": {"conversationID": CONVERSATION, "text": "Hello"},
        "add_file": {"plan.txt": SimpleUploadedFile("plan.txt", b"A plan")},
    }
    return call(client, name, data.get(name), token=token)


def authorize(client: Client, **changes: str | None) -> Any:
    """A valid authorization request, changed where asked to; None leaves a parameter out."""
    given = {"client_id": "client-1", "redirect_uri": CALLBACK, "state": "s", "userid": "user_42", **changes}
    return call(client, "authorize", {name: value for name, value in given.items() if value is not None})


def redirected(response: Any) -> dict[str, str]:
    """The query with which the browser is sent back to the application."""
    assert response.status_code == 302
    target, _, query = response["Location"].partition("?")
    assert target == CALLBACK
    return dict(parse_qsl(query, keep_blank_values=True, strict_parsing=True))


def new_code(client: Client, userid: str | None = "user_42") -> str:
    return redirected(authorize(client, userid=userid))["code"]


def token_fields(code: str, userid: str | None = "user_42", /, **changes: str | None) -> dict[str, str]:
    """What a valid token request sends, changed where asked to; None leaves a field out."""
    given = {"client_id": "client-1", "client_secret": "secret-1", "redirect_uri": CALLBACK, "code": code}
    changed = {**given, "userid": userid, **changes}
    return {name: value for name, value in changed.items() if value is not None}


def obtain(client: Client, userid: str | None = "user_42") -> dict[str, Any]:
    """The answer to a valid token request for a fresh code."""
    answer: dict[str, Any] = call(client, "token", token_fields(new_code(client, userid), userid)).json()
    return answer


def redeem(code: str) -> Any:
    return call(Client(), "token", token_fields(code))


def assert_plain(response: Any, text: str) -> None:
    assert (response.status_code, response.content.decode()) == (400, text)
    assert response["Content-Type"] == "text/plain; charset=utf-8"


def assert_problem(response: Any, status: int, title: str, section: str) -> str:
    assert response["Content-Type"] == "application/problem+json; charset=utf-8"
    content = response.json()
    trace_id = content.pop("traceId")
    kind = f"https://tools.ietf.org/html/rfc9110#section-{section}"
    assert (response.status_code, content) == (status, {"type": kind, "title": title, "status": status})
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-00", trace_id)
    return str(trace_id)


def assert_unauthorized(response: Any) -> str:
    return assert_problem(response, 401, "Unauthorized", "15.5.2")


# The authorization endpoint


def test_authorize_returns_code_and_exact_state(client: Client) -> None:
    query = redirected(authorize(client, state=STATE))
    assert query.keys() == {"code", "state"}
    assert query["state"] == STATE


def test_state_is_returned_only_if_it_was_sent(client: Client) -> None:
    assert redirected(authorize(client, state=None)).keys() == {"code"}
    assert redirected(authorize(client, state=""))["state"] == ""


def test_redirect_uri_may_have_query_and_scheme(client: Client, settings: "Settings") -> None:
    uri = "my-app:/back?a=b"
    settings.AIRISK_OAUTH_SANDBOX_CLIENTS = {"app": {"client_secret": "x", "redirect_uris": uri}}
    assert authorize(client, client_id="app", redirect_uri=uri)["Location"].startswith(f"{uri}&code=")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"client_id": None}, "Invalid client_id"),
        ({"client_id": ""}, "Invalid client_id"),
        ({"redirect_uri": None}, "Invalid redirect_uri"),
        ({"redirect_uri": "https://evil.example/"}, "Invalid redirect_uri"),
        ({"redirect_uri": f"{CALLBACK}x"}, "Invalid redirect_uri"),
        ({"redirect_uri": f"{CALLBACK}, {OTHER_CALLBACK}"}, "Invalid redirect_uri"),
        ({"userid": "unknown-7"}, "Invalid userid"),
        ({"userid": ""}, "Invalid userid"),
    ],
)
def test_invalid_authorization_is_not_redirected(client: Client, changes: dict[str, str | None], text: str) -> None:
    assert_plain(authorize(client, **changes), text)


def test_unknown_client_gets_unique_trace_ids(client: Client) -> None:
    traces = {assert_unauthorized(authorize(client, client_id="nobody")) for _ in range(2)}
    assert len(traces) == 2


def test_refuse_switch_redirects_with_an_error(client: Client) -> None:
    world.switches.refuse = True
    assert redirected(authorize(client)) == {"error": "access_denied", "state": "s"}


@pytest.mark.parametrize("shape", ["error", "redirect"])
@pytest.mark.parametrize(
    ("changes", "reason"), [({"userid": "unknown"}, "Invalid userid"), ({"client_id": "x"}, "Unauthorized")]
)
def test_refusal_can_redirect_to_json(client: Client, shape: str, changes: dict[str, str], reason: str) -> None:
    world.switches.refusals = shape
    response = authorize(client, **changes)
    path, _, query = response["Location"].partition("?")
    assert (response.status_code, path) == (302, address("error"))
    given = dict(parse_qsl(query, strict_parsing=True))
    assert ("error" in given) == (shape == "error")
    page = client.get(response["Location"])
    assert (page.status_code, page["Content-Type"]) == (200, "application/json; charset=utf-8")
    assert page.json() == {"error": "invalid_request", **given}
    assert given["error_description"] == reason
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-00", given["traceId"])


def test_refusal_can_be_json_with_status_200(client: Client) -> None:
    world.switches.refusals = "json"
    response = authorize(client, redirect_uri="https://evil.example/")
    assert (response.status_code, response.json()["error_description"]) == (200, "Invalid redirect_uri")
    assert redirected(authorize(client)).keys() == {"code", "state"}


def test_state_missing_switch_drops_the_state(client: Client) -> None:
    world.switches.state_missing = True
    assert redirected(authorize(client)).keys() == {"code"}


@pytest.mark.parametrize(("userid", "words"), [("user_42", "on behalf of user_42"), (None, "access for itself")])
def test_login_page_button_leads_to_the_redirect(userid: str | None, words: str) -> None:
    world.switches.login_page = True
    browser = Client(enforce_csrf_checks=True)
    page = authorize(browser, state=STATE, userid=userid)
    text = page.content.decode()
    assert (page.status_code, page["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert words in text
    action = re.search('<form method="post" action="([^"]+)">', text)
    assert action is not None
    hidden = re.findall('<input type="hidden" name="([^"]+)" value="([^"]*)">', text)
    inputs = {name: html.unescape(value) for name, value in hidden}
    query = redirected(browser.post(urljoin(reverse("airisk_sandbox:authorize"), action[1]), inputs))
    assert query["state"] == STATE
    assert "access_token" in call(browser, "token", token_fields(query["code"], userid)).json()


def test_login_page_checks_the_csrf_token() -> None:
    browser = Client(enforce_csrf_checks=True)
    given = {"client_id": "client-1", "redirect_uri": CALLBACK}
    assert call(browser, "consent", given).status_code == 403


def test_login_page_validates_its_form_again(client: Client) -> None:
    given = {"client_id": "client-1", "redirect_uri": "https://evil.example/"}
    assert_plain(call(client, "consent", given), "Invalid redirect_uri")


# The token endpoint


@pytest.mark.parametrize(
    "content_type",
    # None is a multipart form.
    [None, "application/x-www-form-urlencoded", "application/json; charset=utf-8"],
)
def test_code_is_exchanged_for_token_with_expiry(client: Client, content_type: str | None) -> None:
    world.clock = lambda: NOON + 0.5
    given: Any = token_fields(new_code(client))
    extra = {"content_type": content_type} if content_type else {}
    if content_type == "application/x-www-form-urlencoded":
        given = "&".join(f"{name}={value}" for name, value in given.items())
    response = call(client, "token", given, **extra)
    assert response["Content-Type"] == "application/json; charset=utf-8"
    answer = response.json()
    assert answer.keys() == {"access_token", "expiration"}
    assert re.fullmatch(r"eyJ[A-Za-z0-9._~+/-]+=*", answer["access_token"])
    assert answer["expiration"] == "2025-03-31T13:00:01Z"


def test_null_userid_gets_an_application_token(client: Client) -> None:
    given = {**token_fields(new_code(client, None), None), "userid": None}
    response = call(client, "token", given, content_type="application/json")
    assert response.status_code == 200


@pytest.mark.parametrize("name", ["client_id", "client_secret", "redirect_uri", "code"])
@pytest.mark.parametrize("value", [None, ""])
def test_missing_token_field_is_named(client: Client, name: str, value: str | None) -> None:
    given = token_fields("some-code", **{name: value})
    assert_plain(call(client, "token", given), f"Invalid {name}")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_json_body_must_be_an_object(client: Client, body: bytes) -> None:
    assert_plain(call(client, "token", body, content_type="application/json"), "Invalid client_id")


def test_token_fields_in_the_query_are_ignored(client: Client) -> None:
    query = token_fields(new_code(client))
    assert_plain(call(client, "token", query_params=query), "Invalid client_id")


@pytest.mark.parametrize("changes", [{"client_id": "nobody"}, {"client_secret": "secret-2"}])
def test_wrong_client_credentials_get_401(client: Client, changes: dict[str, str]) -> None:
    assert_unauthorized(call(client, "token", token_fields(new_code(client), **changes)))


def test_token_needs_a_registered_redirect_uri(client: Client) -> None:
    given = token_fields(new_code(client), redirect_uri="https://evil.example/")
    assert_plain(call(client, "token", given), "Invalid redirect_uri")


@pytest.mark.parametrize(
    "changes",
    [
        {"code": "made-up"},
        {"userid": "user_43"},
        {"userid": None},
        {"userid": ""},
        {"redirect_uri": OTHER_CALLBACK},
        {"client_id": "client-2", "client_secret": "secret-2"},
    ],
)
def test_code_is_bound_to_its_authorization(client: Client, changes: dict[str, str | None]) -> None:
    assert_plain(call(client, "token", token_fields(new_code(client), **changes)), "Invalid Code")


def test_application_code_gets_no_user_token(client: Client) -> None:
    assert_plain(call(client, "token", token_fields(new_code(client, None), "user_42")), "Invalid Code")


def test_code_is_spent_by_a_wrong_userid(client: Client) -> None:
    code = new_code(client)
    call(client, "token", token_fields(code, "user_43"))
    assert_plain(call(client, "token", token_fields(code)), "Invalid Code")


@pytest.mark.parametrize("userid", [None, "user_42", "user_7", "unknown"])
def test_code_can_carry_its_user(client: Client, userid: str | None) -> None:
    world.switches.codes_carry_user = True
    answer = call(client, "token", token_fields(new_code(client, "user_43"), userid)).json()
    assert world.caller_of(answer["access_token"]) == Caller("client-1", "user_43")
    code = new_code(client)
    assert_plain(call(client, "token", token_fields(code, redirect_uri=OTHER_CALLBACK)), "Invalid Code")
    assert_plain(call(client, "token", token_fields(code)), "Invalid Code")


def test_code_can_be_reusable_until_it_expires(client: Client) -> None:
    world.switches.codes_reusable, world.clock = True, lambda: NOON
    code = new_code(client)
    assert [call(client, "token", token_fields(code)).status_code for _ in range(2)] == [200, 200]
    world.clock = lambda: NOON + 60
    assert_plain(call(client, "token", token_fields(code)), "Invalid Code")


@pytest.mark.parametrize("redirect_uri", [None, "https://evil.example/", OTHER_CALLBACK])
def test_redirect_uri_can_go_unchecked(client: Client, redirect_uri: str | None) -> None:
    world.switches.any_redirect_uri = True
    code = new_code(client)
    assert call(client, "token", token_fields(code, redirect_uri=redirect_uri)).status_code == 200
    assert_plain(call(client, "token", token_fields(new_code(client), "user_43")), "Invalid Code")


def test_expiry_can_lack_an_offset(client: Client) -> None:
    world.switches.no_offset, world.clock = True, lambda: NOON
    assert obtain(client)["expiration"] == "2025-03-31T12:59:59.9999999"


def test_concurrent_exchanges_give_one_token(client: Client) -> None:
    answers = at_once(*[partial(redeem, new_code(client))] * 20)
    assert sorted(answer.status_code for answer in answers) == [200] + 19 * [400]


def test_code_is_valid_for_a_minute(client: Client) -> None:
    world.clock = lambda: NOON
    in_time, too_late = new_code(client), new_code(client)
    world.clock = lambda: NOON + 59.9
    assert call(client, "token", token_fields(in_time)).status_code == 200
    world.clock = lambda: NOON + 60
    assert_plain(call(client, "token", token_fields(too_late)), "Invalid Code")


def test_token_answer_can_use_expires_in(client: Client) -> None:
    world.switches.expires_in_shape = True
    world.switches.token_life = 90
    answer = obtain(client)
    assert answer.keys() == {"access_token", "expires_in"}
    assert answer["expires_in"] == 90


@pytest.mark.parametrize("expires_in_shape", [False, True])
def test_token_can_have_no_expiry(client: Client, expires_in_shape: bool) -> None:
    world.switches = Switches(token_life=None, expires_in_shape=expires_in_shape)
    answer = obtain(client)
    assert answer.keys() == {"access_token"}
    world.clock = lambda: NOON * 2
    assert call(client, "list_agents", token=answer["access_token"]).status_code == 200


def test_malformed_answer_is_a_web_page(client: Client) -> None:
    world.switches.malformed = True
    response = call(client, "token", token_fields(new_code(client)))
    assert (response.status_code, response["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert response.content.startswith(b"<!DOCTYPE html>")


# Calls of the API; what they answer: test_sandbox_chat.py


@pytest.mark.parametrize("name", API)
@pytest.mark.parametrize("header", [None, "Bearer", "Bearer eyJ.x", "Basic {}", "{}", "Bearer {}x", "Bearer {}é"])
def test_api_call_without_valid_token_gets_401(client: Client, name: str, header: str | None) -> None:
    token = obtain(client)["access_token"]
    extra = {} if header is None else {"HTTP_AUTHORIZATION": header.format(token)}
    assert_unauthorized(call(client, name, **extra))


@pytest.mark.parametrize("name", API)
def test_api_call_with_expired_token_gets_401(client: Client, name: str) -> None:
    world.clock = lambda: NOON
    token = obtain(client)["access_token"]
    world.clock = lambda: NOON + 3599
    assert call_rightly(client, name, token).status_code == 200
    world.clock = lambda: NOON + 3600
    assert_unauthorized(call_rightly(client, name, token))


@pytest.mark.parametrize("name", API)
def test_api_call_of_the_application_gets_403(client: Client, name: str) -> None:
    assert_problem(call_rightly(client, name, obtain(client, None)["access_token"]), 403, "Forbidden", "15.5.4")


def test_expiring_all_tokens_spares_later_ones(client: Client) -> None:
    world.clock = lambda: NOON
    tokens = [obtain(client, userid)["access_token"] for userid in ("user_42", None)]
    world.end_all_tokens()
    for token in tokens:
        assert_unauthorized(call(client, "list_agents", token=token))
    assert call(client, "list_agents", token=obtain(client)["access_token"]).status_code == 200


def test_token_survives_a_server_reload(client: Client) -> None:
    token = obtain(client)["access_token"]
    reloaded = World()
    caller = reloaded.caller_of(token)
    assert caller is not None
    assert caller.userid == "user_42"
    reloaded.end_all_tokens()
    assert reloaded.caller_of(token) is None


def test_reset_forgets_a_clock_that_was_ahead(client: Client) -> None:
    world.clock = lambda: time.time() + 3600
    obtain(client)
    world.reset()
    token = obtain(client)["access_token"]
    reloaded = World()
    reloaded.end_all_tokens()
    assert reloaded.caller_of(token) is None


# What all endpoints have in common


@pytest.mark.parametrize("name", AIRISK)
@pytest.mark.parametrize("retry_after", [None, 0, 120])
def test_outage_answers_503_with_a_web_page(client: Client, name: str, retry_after: int | None) -> None:
    world.switches = Switches(outage=True, retry_after=retry_after)
    response = call(client, name)
    assert (response.status_code, response["Content-Type"]) == (503, "text/html; charset=utf-8")
    assert response.headers.get("Retry-After") == (None if retry_after is None else str(retry_after))


@pytest.mark.parametrize("name", AIRISK)
def test_wrong_method_gets_405(client: Client, name: str) -> None:
    allowed = "POST" if name in POST else "GET"
    response = client.put(address(name))
    assert (response.status_code, response["Allow"], response.content) == (405, allowed, b"")


@pytest.mark.parametrize("name", AIRISK)
def test_latency_delays_every_answer(client: Client, name: str) -> None:
    world.switches.latency = 0.02
    call(client, name)
    (seen,) = world.journal
    assert seen.ended - seen.started >= 0.02


@pytest.mark.parametrize("name", AIRISK)
def test_answers_have_the_headers_of_azure(client: Client, name: str) -> None:
    response = call(client, name)
    assert {"ARRAffinity", "ARRAffinitySameSite"} <= response.cookies.keys()
    assert response["Strict-Transport-Security"] == "max-age=2592000"
    assert call(client, name, secure=True).headers.get("Strict-Transport-Security") is None


# The journal


def test_journal_has_parameters_but_no_secrets(client: Client) -> None:
    state, text = "state-canary", "text-canary"
    code = redirected(authorize(client, state=state, prompt="prompt-canary"))["code"]
    given = token_fields(code, grant_type="authorization_code")
    token = call(client, "token", given, query_params={"trace": "x"}).json()["access_token"]
    call(client, "ask_agent", {"text": text, "conversationID": CONVERSATION}, token=token)

    listed = call(client, "journal")
    assert listed.headers["Content-Type"] == "application/json"
    for secret in (code, "secret-1", token, state, text, "prompt-canary", "authorization_code"):
        assert secret not in listed.content.decode()
    first, second, third = listed.json()["journal"]
    known = {"client_id": "client-1", "redirect_uri": CALLBACK, "userid": "user_42"}
    assert (first["endpoint"], first["method"], first["status"]) == ("/api/oauth2", "GET", 302)
    assert first["parameters"] == ["client_id", "prompt", "redirect_uri", "state", "userid"]
    assert first["values"] == second["values"] == known
    assert (second["endpoint"], second["method"], second["status"]) == ("/api/oauth2/Token", "POST", 200)
    assert {"code", "client_secret", "grant_type", "trace"} < set(second["parameters"])
    assert third["values"] == {"client_id": "client-1", "userid": "user_42"}
    assert [seen.endpoint for seen in world.journal] == [
        "/api/oauth2",
        "/api/oauth2/Token",
        "/api/Chat/AskAgent",
    ]


def test_journal_shows_overlapping_requests(client: Client) -> None:
    world.clock = lambda: NOON
    codes = [new_code(client) for _ in range(4)]
    world.switches.latency = 0.2
    at_once(*(partial(redeem, code) for code in codes[:2]))
    world.switches.latency = 0
    for code in codes[2:]:
        call(client, "token", token_fields(code))
    first, second, third, fourth = world.journal[4:]
    assert max(first.started, second.started) < min(first.ended, second.ended)
    assert third.ended <= fourth.started
    assert {seen.time for seen in world.journal} == {NOON}


def test_journal_size_is_limited(client: Client) -> None:
    authorize(client, userid=10_000 * "x")
    assert len(world.journal[0].values["userid"]) == 200
    entry = JournalEntry(NOON, 0, 0, "/api/Chat/ListAgents", "GET", (), {}, 200)
    for _ in range(JOURNAL_LENGTH):
        world.record(entry)
    assert world.journal == JOURNAL_LENGTH * [entry]


# Who exists


def test_default_clients_come_from_airisk_oauth(client: Client, settings: "Settings") -> None:
    del settings.AIRISK_OAUTH_SANDBOX_CLIENTS
    site = {"CLIENT_ID": "site", "CLIENT_SECRET": "site-secret"}
    settings.AIRISK_OAUTH = {
        "default": {**site, "REDIRECT_URI": CALLBACK},
        "second": {**site, "REDIRECT_URI": OTHER_CALLBACK},
        "unfinished": {},
    }
    for uri in (CALLBACK, OTHER_CALLBACK):
        assert authorize(client, client_id="site", redirect_uri=uri).status_code == 302
    code = redirected(authorize(client, client_id="site"))["code"]
    given = token_fields(code, client_id="site", client_secret="site-secret")
    assert call(client, "token", given).status_code == 200
    assert_unauthorized(authorize(client))


def test_users_setting_limits_and_names_users(client: Client, settings: "Settings") -> None:
    settings.AIRISK_OAUTH_SANDBOX_USERS = {"user_42": "Ada Lovelace"}
    world.switches.login_page = True
    assert "on behalf of Ada Lovelace" in authorize(client).content.decode()
    assert_plain(authorize(client, userid="user_43"), "Invalid userid")


# Where the sandbox exists


@pytest.mark.parametrize(
    ("debug", "setting", "exists"),
    [
        (True, None, True),
        (False, True, True),
        (False, None, False),
        (False, 1, False),
        (False, "True", False),
    ],
)
def test_sandbox_needs_debug_or_its_setting(settings: "Settings", debug: bool, setting: object, exists: bool) -> None:
    settings.DEBUG = debug
    settings.AIRISK_OAUTH_SANDBOX = setting
    client = Client(enforce_csrf_checks=True)
    for name in [*AIRISK, "control", "journal"]:
        url = address(name)
        for response in (client.get(url), client.post(url)):
            assert (response.status_code != 404) is exists


@pytest.mark.parametrize("middleware", [[], LOGIN_REQUIRED])
def test_sandbox_needs_no_login_or_session(client: Client, settings: "Settings", middleware: list[str]) -> None:
    settings.MIDDLEWARE = middleware
    assert call(client, "list_agents", token=obtain(client)["access_token"]).status_code == 200
    assert call(client, "journal").status_code == 200
    assert call(client, "control").status_code == 200


@pytest.mark.urls(__name__)
def test_sandbox_works_under_any_prefix(client: Client) -> None:
    assert reverse("airisk_sandbox:token") == "/deep/down/api/oauth2/Token"
    assert "http://testserver/deep/down<" in call(client, "control").content.decode()
    assert "access_token" in obtain(client)


@pytest.mark.parametrize("deploy", [True, False])
def test_deploy_check_rejects_the_sandbox(deploy: bool) -> None:
    found = checks.run_checks(tags=[checks.Tags.security], include_deployment_checks=deploy)
    assert [m.is_serious() for m in found if m.id == "airisk_oauth.E100"] == ([True] if deploy else [])


def test_sandbox_imports_nothing_of_the_package() -> None:
    for module in Path(control.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""] if node.level == 0 else []
                assert node.level < 2
            else:
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert {name.partition(".")[0] for name in names} <= {*sys.stdlib_module_names, "django"}


# The control page


def switch_fields(**changes: str) -> dict[str, str]:
    return {"action": "save", "latency": "0", "retry_after": "", "token_life": "3600", **changes}


def test_control_page_shows_state_but_no_secrets(
    client: Client,
) -> None:
    authorize(client, userid="<b>user")
    page = client.get(reverse("airisk_sandbox:control")).content.decode()
    assert "http://testserver" in page
    assert OTHER_CALLBACK in page
    assert "&lt;b&gt;user" in page
    assert "GET /api/oauth2" in page
    assert "secret-1" not in page
    assert not re.search("<script|<link|<img|@import|url\\(|<b>", page)


def test_control_page_sets_every_switch(client: Client) -> None:
    flags = {switch.name: True for switch in fields(Switches) if switch.type is bool}
    changes = {"latency": "0.5", "retry_after": "7", "token_life": "", "first_text_after": "2.5", "refusals": "json"}
    given = switch_fields(**changes, **dict.fromkeys(flags, "on"))
    url = reverse("airisk_sandbox:control")
    response = client.post(url, given)
    assert (response.status_code, response["Location"]) == (303, url)
    assert len(flags) == 13
    of_numbers: Any = {"latency": 0.5, "retry_after": 7, "token_life": None, "first_text_after": 2.5}
    assert world.switches == Switches(refusals="json", **of_numbers, **flags)
    assert 'value="0.5"' in client.get(url).content.decode()


def test_control_page_offers_every_way_to_refuse() -> None:
    field: Any = control.SwitchesForm().fields["refusals"]
    assert tuple(dict(field.choices)) == REFUSALS


def test_control_page_resets_omitted_switches(client: Client) -> None:
    client.post(reverse("airisk_sandbox:control"), switch_fields())
    assert world.switches == Switches()


@pytest.mark.parametrize(
    "changes",
    [
        {"latency": "nan"},
        {"latency": ""},
        {"token_life": "0"},
        {"retry_after": "x"},
        {"refusals": "x"},
        {"first_text_after": "-1"},
    ],
)
def test_control_page_rejects_invalid_values(client: Client, changes: dict[str, str]) -> None:
    response = client.post(reverse("airisk_sandbox:control"), switch_fields(outage="on", **changes))
    assert response.status_code == 400
    assert b"errorlist" in response.content
    assert world.switches == Switches()


def test_control_page_expires_all_tokens(client: Client) -> None:
    token = obtain(client)["access_token"]
    world.switches.latency = 0.01
    client.post(reverse("airisk_sandbox:control"), {"action": "end_all_tokens"})
    assert_unauthorized(call(client, "list_agents", token=token))
    assert world.switches == Switches(latency=0.01)


def test_control_page_resets_everything(client: Client) -> None:
    world.switches.outage = True
    authorize(client)
    client.post(reverse("airisk_sandbox:control"), {"action": "reset"})
    assert (world.switches, world.journal) == (Switches(), [])


def test_control_page_checks_the_csrf_token() -> None:
    browser = Client(enforce_csrf_checks=True)
    assert browser.post(reverse("airisk_sandbox:control"), switch_fields(outage="on")).status_code == 403
    assert world.switches == Switches()
