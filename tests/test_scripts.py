"""The connection pages as scripts see them: JSON, and for htmx where to send the browser."""

import re
import secrets
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
from cryptography.fernet import Fernet
from django.contrib.auth.models import User
from django.contrib.messages import get_messages
from django.test import Client

from airisk_oauth.connecting.reasons import Reason
from airisk_oauth.models import AIRiskIdentity, AIRiskToken, PendingAuthorization
from airisk_oauth.sandbox.world import World
from tests.support.browsing import authorize, state_of
from tests.support.options import set_option
from tests.support.pages import text_of
from tests.support.people import give_token, stored

if TYPE_CHECKING:
    from pytest_django import Settings

CONNECTION, CONNECT, DISCONNECT = "/airisk/", "/airisk/connect/", "/airisk/disconnect/"
FETCH = {"Accept": "*/*", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"}
HTMX = {**FETCH, "HX-Request": "true", "HX-Current-URL": "http://testserver/reports/?year=2026"}
BOOSTED = {**HTMX, "HX-Boosted": "true"}
SCRIPTS = [
    {"Accept": "*/*", "User-Agent": "curl/8.14.1"},
    {"User-Agent": "Go-http-client/1.1"},
    {"Accept": "application/json"},
    {"Accept": "text/event-stream", "Sec-Fetch-Mode": "cors"},
    {"Accept": "text/html", "X-Requested-With": "XMLHttpRequest"},
    {"Accept": "text/html, application/xhtml+xml", "Sec-Fetch-Mode": "cors"},
    HTMX,
]
BROWSERS = [
    {},
    {"User-Agent": "Mozilla/5.0"},
    {"Accept": "Text/HTML,*/*;q=0.8", "Sec-Fetch-Mode": "navigate", "User-Agent": "Mozilla/5.0"},
    {**HTMX, "HX-History-Restore-Request": "true"},
]
#: What can go wrong for a script.
EXPECTED = (
    Reason.SIGNED_OUT,
    Reason.NO_IDENTITY,
    Reason.AT_ANOTHER_HOST,
    Reason.UNKNOWN_DEPLOYMENT,
    Reason.SETTINGS_UNAVAILABLE,
)
#: A user who has not connected, as scripts see them.
NOT_CONNECTED = {
    "deployment": "default",
    "connected": False,
    "userid": "user_42",
    "expires_at": None,
    "needs_person": False,
    "connect_url": CONNECT,
}


@pytest.fixture
def script(browser: Client, airisk: World) -> Client:
    """A script on a page that Mia has open."""
    browser.defaults.update({f"HTTP_{name.upper().replace('-', '_')}": value for name, value in FETCH.items()})
    return browser


def read(response: Any, status: int = 200) -> dict[str, Any]:
    """Check that this is JSON that no cache may keep, and return it."""
    assert (response.status_code, response["Content-Type"]) == (status, "application/json")
    assert "no-store" in response["Cache-Control"]
    assert {"Accept", "Sec-Fetch-Mode", "X-Requested-With", "HX-Request"} <= set(response["Vary"].split(", "))
    answer: dict[str, Any] = response.json()
    return answer


# The status


@pytest.mark.parametrize("headers", SCRIPTS, ids=str)
def test_script_reads_all_connections(headers: dict[str, str], browser: Client, mia: User) -> None:
    token = give_token(mia)
    assert len(read(browser.get(CONNECTION, headers=headers))["connections"]) == 1
    AIRiskIdentity.objects.create(user=mia, deployment="second", userid="user_7")
    assert token.expires_at is not None
    assert read(browser.get(CONNECTION, headers=headers)) == {
        "connections": [
            {**NOT_CONNECTED, "connected": True, "expires_at": token.expires_at.isoformat()},
            {**NOT_CONNECTED, "deployment": "second", "userid": "user_7", "connect_url": "/airisk/connect/second/"},
        ]
    }


@pytest.mark.parametrize("headers", BROWSERS, ids=str)
@pytest.mark.parametrize("page", [CONNECTION, CONNECT])
def test_browser_is_shown_a_page(page: str, headers: dict[str, str], browser: Client) -> None:
    response = browser.get(page, headers=headers)
    assert (response.status_code, response["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "Accept" in response["Vary"]
    assert "no-store" in response["Cache-Control"]


def test_connect_page_is_one_connection(script: Client) -> None:
    assert read(script.get(CONNECT)) == NOT_CONNECTED
    assert script.head(CONNECT).status_code == 200
    assert not PendingAuthorization.objects.exists()


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ({"ends_in": None}, {"connected": True, "expires_at": None}),
        ({"ends_in": -60}, {"connected": True}),
        ({"ends_in": -60, "failure_kind": "unavailable", "failure_count": 1}, {"connected": True}),
        ({"failure_kind": "person", "failure_count": 1}, {"needs_person": True}),
        ({"userid": "user_1"}, {"needs_person": True}),
    ],
    ids=["no expiry", "expired", "outage", "person", "another identity"],
)
def test_status_says_if_a_person_is_needed(
    token: dict[str, Any], expected: dict[str, Any], script: Client, mia: User
) -> None:
    expires_at = give_token(mia, **token).expires_at
    when = None if expires_at is None else expires_at.isoformat()
    assert read(script.get(CONNECT)) == {**NOT_CONNECTED, "expires_at": when, **expected}


def test_status_without_identity_has_no_userid(script: Client) -> None:
    AIRiskIdentity.objects.all().delete()
    assert read(script.get(CONNECT)) == {**NOT_CONNECTED, "userid": None}


def test_status_gives_a_script_the_csrf_cookie(browser: Client, mia: User, airisk: World) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(mia)
    assert client.post(CONNECT, headers=FETCH).status_code == 403
    client.get(CONNECTION, headers=FETCH)
    headers = {**FETCH, "X-CSRFToken": client.cookies["csrftoken"].value}
    assert "authorization_url" in read(client.post(CONNECT, headers=headers))


# Connecting and disconnecting


def test_script_connects_at_the_given_url(script: Client, mia: User) -> None:
    answer = read(script.post(CONNECT, {"next": "/reports/"}))
    assert answer.keys() == {"authorization_url"}
    back = authorize(answer["authorization_url"])
    assert script.get(back, headers={"Accept": "text/html", "Sec-Fetch-Mode": "navigate"})["Location"] == "/reports/"
    assert stored(mia).userid == "user_42"


def test_htmx_is_sent_to_airisk(script: Client) -> None:
    response = script.post(CONNECT, headers=HTMX)
    assert response["HX-Redirect"] == read(response)["authorization_url"]


def test_script_disconnects_and_reads_the_status(script: Client, mia: User) -> None:
    give_token(mia)
    for _again in range(2):
        response = script.post(DISCONNECT, {"next": "/reports/"})
        assert read(response) == NOT_CONNECTED
        assert "HX-Redirect" not in response
    assert not AIRiskToken.objects.exists()
    # It would be shown on whichever page the person opens next.
    assert not [*get_messages(script.get("/").wsgi_request)]


@pytest.mark.parametrize(("data", "to"), [({}, None), ({"next": "/a/"}, "/a/"), ({"next": "//evil"}, None)], ids=str)
def test_htmx_disconnects_and_goes_to_next(data: dict[str, str], to: str | None, script: Client) -> None:
    response = script.post(DISCONNECT, data, headers=HTMX)
    assert read(response) == NOT_CONNECTED
    assert response.get("HX-Redirect") == to


# Problems


def test_script_without_identity_gets_a_problem(script: Client) -> None:
    AIRiskIdentity.objects.all().delete()
    problem = read(script.post(CONNECT), 403)
    assert problem.keys() == {"code", "detail"}
    assert problem["code"] == "no_identity"
    assert problem["detail"].startswith("You have no AIRisk identity yet. Ask an administrator")


def test_impersonated_script_gets_a_problem(script: Client) -> None:
    session = script.session
    session["hijack_history"] = ["1"]
    session.save()
    assert read(script.post(CONNECT), 403)["code"] == "signed_out"


def test_script_at_another_host_gets_a_problem(script: Client) -> None:
    headers = {"Host": "www.app.example.com", "Origin": "https://www.app.example.com"}
    response = script.post(CONNECT, {"next": "/a/"}, headers=headers)
    assert read(response, 409)["code"] == "at_another_host"
    assert "HX-Redirect" not in response
    response = script.post(CONNECT, {"next": "/a/"}, headers={**HTMX, **headers})
    assert read(response, 409)["code"] == "at_another_host"
    assert response["HX-Redirect"] == "https://app.example.com/airisk/connect/?next=%2Fa%2F"


@pytest.mark.parametrize(("method", "page"), [("get", CONNECT), ("post", CONNECT), ("post", DISCONNECT)])
def test_unknown_deployment_is_a_problem(method: str, page: str, script: Client) -> None:
    problem = read(getattr(script, method)(f"{page}nowhere/"), 404)
    assert problem == {
        "code": "unknown_deployment",
        "detail": "This site has no AIRisk deployment of that name.",
    }


@pytest.mark.parametrize("headers", SCRIPTS, ids=str)
@pytest.mark.parametrize(("method", "page"), [("get", CONNECTION), ("post", CONNECT), ("post", DISCONNECT)])
@pytest.mark.parametrize("middleware", [[], ["django.contrib.auth.middleware.LoginRequiredMiddleware"]], ids=len)
def test_script_is_never_sent_to_the_login_page(
    middleware: list[str],
    method: str,
    page: str,
    headers: dict[str, str],
    client: Client,
    db: None,
    settings: "Settings",
) -> None:
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, *middleware]
    response = getattr(client, method)(page, headers=headers)
    problem = read(response, 403)
    assert problem["code"] == "signed_out"
    assert problem["detail"].startswith("You are not signed in here.")
    assert not {"Location", "HX-Redirect"} & set(response.headers)


@pytest.mark.parametrize(("page", "method"), [(CONNECTION, "post"), (DISCONNECT, "get"), (CONNECT, "put")])
def test_wrong_method_is_a_405(page: str, method: str, script: Client) -> None:
    assert getattr(script, method)(page).status_code == 405


def test_json_tells_no_secret(script: Client, mia: User, settings: "Settings") -> None:
    secret, key = f"canary-{secrets.token_hex(8)}", Fernet.generate_key().decode()
    settings.AIRISK_OAUTH_ENCRYPTION_KEYS = [key]
    set_option(settings, CLIENT_SECRET=secret)
    begun = script.post(CONNECT, headers=HTMX)
    url = read(begun)["authorization_url"]
    token = f"canary-{secrets.token_hex(8)}"
    give_token(mia, access_token=token, ends_in=-60, failure_kind="person", failure_reason="No", failure_count=1)
    asked = [
        script.get(CONNECTION),
        script.get(CONNECT),
        script.post(f"{CONNECT}nowhere/"),
        script.post(f"{CONNECT}second/"),
        script.get("/conversations/"),
        script.post(DISCONNECT),
    ]
    seen = "".join(f"{response.content.decode()}{response.headers}{response!r}" for response in asked)
    seen += f"{begun.content.decode()}{begun.headers}".replace(url, "") + repr(begun)
    for canary in (secret, key, token, state_of(url), script.cookies["sessionid"].value):
        assert canary not in seen


def test_documentation_names_what_scripts_get() -> None:
    page = text_of("docs/scripts.md")
    keys, problems = page.split("The codes of problems")
    assert re.findall(r"^\| `(\w+)` \|", keys, re.MULTILINE) == list(NOT_CONNECTED)
    documented = dict(re.findall(r"^\| `(\w+)` \| (\d+) \|", problems, re.MULTILINE))
    assert documented == {reason.value: str(reason.status.value) for reason in EXPECTED}


# htmx


@pytest.mark.parametrize("page", [f"{CONNECTION}?a=1", f"{CONNECT}?next=%2Fa%2F"])
def test_boosted_link_loads_the_page_itself(page: str, script: Client) -> None:
    response = script.get(page, headers=BOOSTED)
    read(response)
    assert response["HX-Redirect"] == page


def test_boosted_button_loads_a_page(script: Client) -> None:
    AIRiskIdentity.objects.all().delete()
    assert script.post(CONNECT, headers=BOOSTED)["HX-Redirect"] == CONNECTION
    assert script.post(DISCONNECT, headers=BOOSTED)["HX-Redirect"] == CONNECTION


@pytest.mark.parametrize("page", ["/conversations/", "/needs/", "/needs-class-async/"])
@pytest.mark.parametrize("method", ["get", "post"])
def test_htmx_comes_back_to_the_page_it_is_on(method: str, page: str, script: Client) -> None:
    response = getattr(script, method)(page, headers=HTMX)
    assert read(response, 403).keys() == {"detail", "connect_url"}
    assert response["HX-Redirect"] == f"{CONNECT}?{urlencode({'next': '/reports/?year=2026'})}"


@pytest.mark.parametrize(
    ("headers", "back"),
    [
        ({"HX-Current-URL": "https://testserver:8443/a/#b", "Sec-Fetch-Site": ""}, "/a/#b"),
        ({"HX-Current-URL": "https://app.example.com/a/", "Sec-Fetch-Site": "same-origin"}, "/a/"),
        (
            {
                "HX-Current-URL": "https://app.example.com/a/",
                "Sec-Fetch-Site": "",
                "X-Forwarded-Host": "app.example.com, proxy",
            },
            "/a/",
        ),
        ({"HX-Current-URL": "https://evil.example/a/", "Sec-Fetch-Site": "cross-site"}, ""),
        ({"HX-Current-URL": "https://evil.example/a/", "Sec-Fetch-Site": ""}, ""),
        ({"HX-Current-URL": "javascript:alert(1)"}, ""),
        ({"HX-Current-URL": "/a/"}, ""),
        ({"HX-Current-URL": "http://[/"}, ""),
        ({"HX-Current-URL": "http://testserver"}, ""),
        ({"HX-Current-URL": ""}, ""),
    ],
    ids=str,
)
def test_htmx_comes_back_to_this_site_only(headers: dict[str, str], back: str, script: Client) -> None:
    response = script.get("/needs/", headers={**HTMX, **headers})
    assert response["HX-Redirect"] == (f"{CONNECT}?{urlencode({'next': back})}" if back else CONNECT)


def test_other_scripts_get_no_header_of_htmx(script: Client) -> None:
    for response in (script.get("/needs/"), script.post(CONNECT), script.get(CONNECTION)):
        assert "HX-Redirect" not in response


@pytest.mark.parametrize("headers", [{}, FETCH], ids=["browser", "script"])
@pytest.mark.parametrize("page", ["/conversations/", "/needs/"])
def test_no_cache_keeps_who_has_to_connect(page: str, headers: dict[str, str], browser: Client) -> None:
    for visitor in (browser, Client()):
        response = visitor.get(page, headers=headers)
        assert "no-store" in response["Cache-Control"]
        assert {"Accept", "Sec-Fetch-Mode", "X-Requested-With", "HX-Request"} <= set(response["Vary"].split(", "))
