"""The sandbox: what its endpoints have in common, its journal, its clients and users, and where it is available."""

import ast
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from django.core import checks
from django.test import Client
from django.urls import include, path, reverse

from airisk_oauth.sandbox import control
from airisk_oauth.sandbox.world import JOURNAL_LENGTH, JournalEntry, Switches, World, world
from tests.support.sandbox import (
    API,
    CALLBACK,
    CONVERSATION,
    ENDPOINTS,
    NOON,
    OTHER_CALLBACK,
    POST,
    address,
    assert_plain,
    assert_problem,
    assert_unauthorized,
    authorize,
    call,
    call_validly,
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

LOGIN_REQUIRED = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
]

# For the test that includes the sandbox at another prefix.
urlpatterns = [path("deep/down/", include("airisk_oauth.sandbox.urls"))]


# Calls of the API; their answers are tested in test_sandbox_chat.py


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
    assert call_validly(client, name, token).status_code == 200
    world.clock = lambda: NOON + 3600
    assert_unauthorized(call_validly(client, name, token))


@pytest.mark.parametrize("name", API)
def test_api_call_of_the_application_gets_403(client: Client, name: str) -> None:
    assert_problem(call_validly(client, name, obtain(client, None)["access_token"]), 403, "Forbidden", "15.5.4")


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


@pytest.mark.parametrize("name", ENDPOINTS)
@pytest.mark.parametrize("retry_after", [None, 0, 120])
def test_outage_answers_503_with_a_web_page(client: Client, name: str, retry_after: int | None) -> None:
    world.switches = Switches(outage=True, retry_after=retry_after)
    response = call(client, name)
    assert (response.status_code, response["Content-Type"]) == (503, "text/html; charset=utf-8")
    assert response.headers.get("Retry-After") == (None if retry_after is None else str(retry_after))


@pytest.mark.parametrize("name", ENDPOINTS)
def test_wrong_method_gets_405(client: Client, name: str) -> None:
    allowed = "POST" if name in POST else "GET"
    response = client.put(address(name))
    assert (response.status_code, response["Allow"], response.content) == (405, allowed, b"")


@pytest.mark.parametrize("name", ENDPOINTS)
def test_latency_delays_every_answer(client: Client, name: str) -> None:
    world.switches.latency = 0.02
    call(client, name)
    (seen,) = world.journal
    assert seen.ended - seen.started >= 0.02


@pytest.mark.parametrize("name", ENDPOINTS)
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
    now = time.monotonic()
    entry = JournalEntry(NOON, now, now, "/api/Chat/ListAgents", "GET", (), {}, 200)
    for _ in range(JOURNAL_LENGTH):
        world.record(entry)
    assert world.journal == JOURNAL_LENGTH * [entry]


def test_journal_has_no_request_from_before_a_reset(client: Client) -> None:
    """A slow one may be answered when another test has begun."""
    authorize(client)
    [entry] = world.journal
    world.reset()
    world.record(entry)
    assert world.journal == []


# Clients and users


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


# Where the sandbox is available


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
    for name in [*ENDPOINTS, "control", "journal"]:
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
