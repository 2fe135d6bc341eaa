"""The sandbox's OAuth endpoints, which behave as AIRisk's documentation says, errors included."""

import html
import re
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urljoin

import pytest
from django.test import Client
from django.urls import reverse

from airisk_oauth.sandbox.world import Caller, Switches, world
from tests.support.sandbox import (
    CALLBACK,
    NOON,
    OTHER_CALLBACK,
    address,
    assert_plain,
    assert_unauthorized,
    authorize,
    call,
    new_code,
    obtain,
    redeem,
    redirected,
    token_fields,
)
from tests.support.threads import at_once

if TYPE_CHECKING:
    from pytest_django import Settings

pytestmark = pytest.mark.usefixtures("two_clients")

STATE = "a b&c=<é>\"'+%2F"


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


def test_login_page_can_be_refused(client: Client) -> None:
    world.switches.login_page = True
    assert '<button name="answer" value="refuse">Do not allow</button>' in authorize(client, userid="user_42").text
    given = {"client_id": "client-1", "redirect_uri": CALLBACK, "userid": "user_42", "state": STATE, "answer": "refuse"}
    assert redirected(call(client, "consent", given)) == {"error": "access_denied", "state": STATE}


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
