"""Connecting: the way to AIRisk and back, and everything that must bring nobody a token."""

import hashlib
import json
import logging
import re
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.core.signals import got_request_exception
from django.db import connections
from django.db.models.signals import post_save
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.test import AsyncClient, Client
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.views.debug import ExceptionReporter
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from airisk_oauth import conf
from airisk_oauth.connecting import browsers, flow
from airisk_oauth.connecting.problems import ConnectionFailed
from airisk_oauth.database.failures import NO_FAILURE
from airisk_oauth.exceptions import ConnectionRequired
from airisk_oauth.models import MAX_NEXT, MAX_PENDING, AIRiskIdentity, AIRiskToken, PendingAuthorization
from airisk_oauth.oauth.code_flow import new_state, obtain_silently
from airisk_oauth.oauth.messages import Secret
from airisk_oauth.oauth.transport import OAuthClient
from airisk_oauth.sandbox.world import Caller, World
from airisk_oauth.signals import token_disconnected, token_obtained
from tests.support.browsing import authorize, connect, start, state_of
from tests.support.options import set_option
from tests.support.people import give_token, token_requests
from tests.support.resolvers import answers
from tests.support.signals import Heard, signals_sent
from tests.support.stored import everything_stored, rows_of_flows_and_tokens
from tests.support.threads import at_once

if TYPE_CHECKING:
    from pytest_django import Settings

CONNECTION = "/airisk/"
TOKEN_ENDPOINT = "/api/oauth2/Token"
SUCCESS = "You are connected to AIRisk."

# From Django's own tests for url_has_allowed_host_and_scheme, and others that only matter to this package.
BAD_NEXT = [
    "http://example.com",
    "http:///example.com",
    "https://example.com",
    "ftp://example.com",
    r"\\example.com",
    r"\\\example.com",
    r"/\\/example.com",
    r"\\//example.com",
    r"/\/example.com",
    r"\/example.com",
    r"/\example.com",
    r"http:/\//example.com",
    r"http:\/example.com",
    r"http:/\example.com",
    'javascript:alert("XSS")',
    "\njavascript:alert(x)",
    "java\nscript:alert(x)",
    "\x08//example.com",
    r"http://otherserver\@example.com",
    r"http:\\testserver\@example.com",
    r"http://testserver\me:pass@example.com",
    r"http://testserver\@example.com",
    r"http:\\testserver\confirm\me@example.com",
    "http:999999999",
    "ftp:9999999999",
    "\n",
    "http://[2001:cdba:0000:0000:0000:0000:3257:9652/",
    "http://2001:cdba:0000:0000:0000:0000:3257:9652]/",
    "http://testserver/",
    "//testserver/",
    "//evil",
    "///evil",
    r"/\evil",
    "/.//evil.com",
    "/x/..//evil.com",
    "/x/../y",
    "http://evil",
    "javascript:alert(1)",
    "view/",
    "?x",
    "#x",
    "/ok\r\nX:y",
    "/ok\tx",
    "/ok\u2028x",
    "/ok\u202ex",
    "/ok\x7f",
    "/ok%00",
    "/ok%0D%0aX:y",
    "/ok%5Cx",
    "/ok%7f",
    "/" + "x" * 3000,
]


def binding_of(browser: Client) -> str:
    """Return what the flows of this browser are bound to."""
    request = browser.get(CONNECTION).wsgi_request
    return browsers.binding(request, browsers.cookie_value_or_new(request))


def assert_connected(response: Any, to: str = CONNECTION) -> None:
    assert (response.status_code, response["Location"]) == (302, to)
    assert response["Referrer-Policy"] == "strict-origin"
    assert "no-store" in response["Cache-Control"]


def assert_refused(response: Any, *statuses: int) -> str:
    """Check that this page of ours has no redirect, no foreign asset and nothing of the query; return its text."""
    assert response.status_code in (statuses or range(400, 500))
    assert "Location" not in response
    assert response["Referrer-Policy"] == "strict-origin"
    assert "no-store" in response["Cache-Control"]
    page: str = response.content.decode()
    assert not re.search(r"""(?:src|href|action|url)\s*[=(]\s*["']?(?:https?:)?//""", page)
    seen = f"{page}{response.headers}{response.cookies}"
    for _name, value in parse_qsl(response.request["QUERY_STRING"]):
        assert len(value) < 5 or value not in seen
    return page


def page_after(response: Any, browser: Client) -> str:
    """Return the page that a redirect of ours leads to."""
    assert (response.status_code, response["Location"]) == (302, CONNECTION)
    page = browser.get(CONNECTION)
    assert page.status_code == 200
    return str(page.content.decode())


def same_browser(browser: Client) -> Client:
    """Return another tab of this browser, for use in another thread."""
    tab = Client()
    tab.cookies.load({name: morsel.value for name, morsel in browser.cookies.items()})
    return tab


@pytest.fixture
def heard() -> Iterator[Heard]:
    with signals_sent(token_obtained, token_disconnected) as heard:
        yield heard


@pytest.fixture
def atomic_requests() -> Iterator[None]:
    before = connections.settings["default"]["ATOMIC_REQUESTS"]
    connections.settings["default"]["ATOMIC_REQUESTS"] = True
    yield
    connections.settings["default"]["ATOMIC_REQUESTS"] = before


@pytest.fixture
def no_messages(settings: "Settings") -> None:
    """A site without django.contrib.messages."""
    settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if app != "django.contrib.messages"]
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if "messages" not in name]
    [engine] = settings.TEMPLATES
    processors = [name for name in engine["OPTIONS"]["context_processors"] if "messages" not in name]
    settings.TEMPLATES = [{**engine, "OPTIONS": {"context_processors": processors}}]


@pytest.fixture(params=["plain", "LoginRequiredMiddleware"])
def login_required(request: Any, settings: "Settings") -> None:
    if request.param != "plain":
        settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.contrib.auth.middleware.LoginRequiredMiddleware"]


class ActAs:
    """The ways in which packages let one user act as another; the header says which."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        how = request.headers.get("X-Act", "")
        if how == "session":
            request.user = User.objects.get(username="mia")
        elif how:
            setattr(request.user, how, True)
        return self.get_response(request)


class Together:
    """Lets two requests read their session before either goes on."""

    both = threading.Barrier(2)

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        request.session.keys()
        self.both.wait(timeout=10)
        return self.get_response(request)


def reading_the_query(get_response: Callable[[HttpRequest], HttpResponseBase]) -> Callable[[HttpRequest], Any]:
    """What many a middleware does before the view; the query has been parsed by then."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        request.GET.dict()
        return get_response(request)

    return middleware


# There and back


@pytest.mark.parametrize(("alias", "client_id"), [("default", "client-1"), ("second", "client-2")])
def test_connecting_stores_the_users_own_token(
    alias: str, client_id: str, browser: Client, mia: User, airisk: World
) -> None:
    AIRiskIdentity.objects.update_or_create(user=mia, deployment=alias, defaults={"userid": "user_7"})
    response = connect(browser, alias)
    assert_connected(response)
    assert SUCCESS in page_after(response, browser)
    token = AIRiskToken.objects.get()
    assert (token.user, token.deployment, token.userid) == (mia, alias, "user_7")
    assert airisk.caller_of(token.access_token) == Caller(client_id, "user_7")
    assert [(seen.method, seen.endpoint, seen.values["userid"]) for seen in airisk.journal] == [
        ("GET", "/api/oauth2", "user_7"),
        ("POST", TOKEN_ENDPOINT, "user_7"),
    ]


@pytest.mark.usefixtures("login_required")
def test_connecting_works_with_login_required(browser: Client, airisk: World) -> None:
    assert_connected(connect(browser))


def test_reconnecting_replaces_token_and_failures(browser: Client, mia: User, airisk: World) -> None:
    now = timezone.now()
    failed = {"failure_count": 3, "failure_kind": "refused", "failure_status": 401, "failure_reason": "Unauthorized"}
    moments = {"failed_at": now, "failing_since": now, "retry_at": now + timedelta(hours=1)}
    old = give_token(mia, ends_in=-60, failure_trace_id="00-1", **failed, **moments)
    assert_connected(connect(browser))
    token = AIRiskToken.objects.get()
    assert token.pk == old.pk
    assert token.access_token != "stored-token"
    assert {name: getattr(token, name) for name in NO_FAILURE} == {
        name: getattr(AIRiskToken(), name) for name in NO_FAILURE
    }
    assert not token.is_expired_at(timezone.now())


def test_signals_carry_owner_and_deployment_only(browser: Client, mia: User, airisk: World, heard: Heard) -> None:
    connect(browser)
    browser.post(reverse("airisk_oauth:disconnect"))
    carried = {"sender": AIRiskToken, "user_id": mia.pk, "deployment": "default"}
    assert heard == [(token_obtained, carried), (token_disconnected, carried)]


# Start


@pytest.mark.parametrize(
    "headers",
    [{}, {"Host": "evil.example"}, {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "gopher"}],
    ids=str,
)
def test_authorization_url_has_these_parameters(
    headers: dict[str, str], browser: Client, airisk: World, airisk_url: str, settings: "Settings"
) -> None:
    settings.USE_X_FORWARDED_HOST = True
    response = browser.post(reverse("airisk_oauth:connect"), headers=headers)
    assert response.status_code in (302, 303)
    url, _, query = response["Location"].partition("?")
    assert url == f"{airisk_url}/sandbox/api/oauth2"
    assert parse_qsl(query) == [
        ("client_id", "client-1"),
        ("redirect_uri", "https://app.example.com/airisk/callback/"),
        ("state", state_of(response["Location"])),
        ("userid", "user_42"),
    ]
    assert_connected(browser.get(authorize(response["Location"]), headers=headers))
    assert {seen.values["redirect_uri"] for seen in airisk.journal} == {"https://app.example.com/airisk/callback/"}


@pytest.mark.parametrize(
    "given",
    [
        {"QUERY_STRING": "userid=user_1"},
        {"data": {"userid": "user_1"}},
        {"data": json.dumps({"userid": "user_1"}), "content_type": "application/json"},
    ],
    ids=["query", "body", "json"],
)
def test_userid_from_the_browser_is_ignored(given: dict[str, Any], browser: Client, airisk: World) -> None:
    browser.cookies["userid"] = "user_1"
    response = browser.post(reverse("airisk_oauth:connect"), **given)
    assert_connected(browser.get(f"{authorize(response['Location'])}&userid=user_1"))
    assert [seen.values["userid"] for seen in airisk.journal] == ["user_42", "user_42"]
    assert AIRiskToken.objects.get().userid == "user_42"


def test_opening_the_connect_page_starts_no_flow(browser: Client, airisk: World) -> None:
    response = browser.get(reverse("airisk_oauth:connect"))
    assert (response.status_code, "Location" in response) == (200, False)
    assert (airisk.journal, rows_of_flows_and_tokens()) == ([], [])


@pytest.mark.parametrize("method", ["put", "patch", "delete", "options"])
def test_other_methods_start_no_flow(method: str, browser: Client, airisk: World) -> None:
    assert getattr(browser, method)(reverse("airisk_oauth:connect")).status_code == 405
    assert rows_of_flows_and_tokens() == []


@pytest.mark.parametrize("name", ["connect", "disconnect"])
def test_post_needs_the_csrf_token(name: str, mia: User, airisk: World) -> None:
    give_token(mia)
    careful = Client(enforce_csrf_checks=True)
    careful.force_login(mia)
    url = reverse(f"airisk_oauth:{name}")
    before = rows_of_flows_and_tokens()
    assert careful.post(url).status_code == 403
    assert rows_of_flows_and_tokens() == before
    proof = str(careful.get(reverse("airisk_oauth:connect")).context["csrf_token"])
    assert careful.post(url, {"csrfmiddlewaretoken": proof}).status_code == 302
    assert rows_of_flows_and_tokens() != before


@pytest.mark.parametrize(("method", "name"), [("get", "connection"), ("get", "connect"), ("post", "connect")])
def test_anonymous_visitor_is_sent_to_sign_in(method: str, name: str, client: Client, db: None, airisk: World) -> None:
    url = reverse(f"airisk_oauth:{name}")
    response = getattr(client, method)(url)
    assert (response.status_code, response["Location"]) == (302, f"/accounts/login/?next={url}")
    assert rows_of_flows_and_tokens() == []


def test_state_is_random_and_stored_as_a_hash(browser: Client, airisk: World) -> None:
    state = state_of(start(browser))
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", state)
    assert PendingAuthorization.objects.get().state_hash == hashlib.sha256(state.encode()).hexdigest()
    assert state not in everything_stored()
    assert state not in repr(dict(browser.session))


def test_states_never_repeat_and_have_no_pattern() -> None:
    states = [new_state() for _ in range(10_000)]
    assert len(set(states)) == 10_000
    # Every letter turns up at every place, but at the last one, which holds two bits less.
    assert [len(set(letters)) for letters in zip(*states, strict=True)] == [64] * 42 + [16]


def test_two_hundred_starts_leave_ten_flows(mia: User, airisk: World) -> None:
    states = [state_of(flow.begin(conf.deployment(), mia, browser="b")) for _ in range(200)]
    assert len(set(states)) == 200
    kept = {hashlib.sha256(state.encode()).hexdigest() for state in states[-MAX_PENDING:]}
    assert set(PendingAuthorization.objects.values_list("state_hash", flat=True)) == kept
    assert set(PendingAuthorization.objects.values_list("next", "for_application")) == {("", False)}


def test_eleventh_start_drops_the_oldest_flow(browser: Client, airisk: World) -> None:
    backs = [authorize(start(browser)) for _ in range(MAX_PENDING + 1)]
    assert_refused(browser.get(backs[0]), 403)
    for back in backs[1:]:
        assert_connected(browser.get(back))


def test_starting_a_flow_deletes_old_ones(browser: Client, mia: User, airisk: World) -> None:
    connect(browser)
    start(browser)
    PendingAuthorization.objects.update(created_at=timezone.now() - timedelta(hours=2))
    start(browser)
    assert PendingAuthorization.objects.count() == 1


def test_user_without_an_identity_gets_a_page(
    client: Client, django_user_model: type[User], db: None, airisk: World
) -> None:
    client.force_login(django_user_model.objects.create_user("tom"))
    response = client.post(reverse("airisk_oauth:connect"))
    assert response.status_code == 403
    assert "You have no AIRisk identity yet" in response.content.decode()
    assert rows_of_flows_and_tokens() == []


@pytest.mark.parametrize("name", ["connect", "disconnect"])
def test_unknown_deployment_is_a_404(name: str, browser: Client, airisk: World) -> None:
    assert browser.post(reverse(f"airisk_oauth:{name}", args=["nowhere"])).status_code == 404
    assert (airisk.journal, rows_of_flows_and_tokens()) == ([], [])


def test_callback_404_is_never_the_sites_own_page(browser: Client, airisk: World) -> None:
    back = authorize(start(browser))
    assert_refused(browser.get(back.replace("/callback/", "/callback/nowhere/")), 404)
    assert len(token_requests(airisk)) == 0
    assert_connected(browser.get(back))


def test_redirect_to_airisk_hides_state_in_repr(browser: Client, airisk: World) -> None:
    response = browser.post(reverse("airisk_oauth:connect"))
    assert state_of(response["Location"]) not in repr(response)


# Next


paths_of_this_site = pytest.mark.parametrize(
    "url",
    [
        "/conversations/",
        "/conversations/?page=2&q=a%20b#end",
        "/search/a..b/.well-known/",
        "/view/?param=http://example.com",
        "/" + "x" * (MAX_NEXT - 1),
    ],
    ids=lambda url: url[:40],
)


@paths_of_this_site
def test_next_in_the_form_leads_back(url: str, browser: Client, airisk: World) -> None:
    assert_connected(connect(browser, next=url), url)


@paths_of_this_site
def test_next_in_the_url_leads_back(url: str, browser: Client, airisk: World) -> None:
    page = f"{reverse('airisk_oauth:connect')}?{urlencode({'next': url})}"
    assert browser.get(page).context["next"] == url
    assert_connected(browser.get(authorize(browser.post(page)["Location"])), url)


def test_next_may_have_letters_of_any_language(browser: Client, airisk: World) -> None:
    assert_connected(connect(browser, next="/ä/"), "/%C3%A4/")


@pytest.mark.parametrize("length", [MAX_NEXT + 1, 2048])
def test_next_too_long_to_store_is_ignored(length: int, browser: Client, airisk: World) -> None:
    assert_connected(connect(browser, next="/".ljust(length, "x")))
    assert PendingAuthorization.objects.get().next == ""


@pytest.mark.once
@pytest.mark.parametrize("url", BAD_NEXT, ids=lambda url: repr(url[:40]))
def test_unsafe_next_is_ignored(url: str, browser: Client, airisk: World) -> None:
    page = browser.get(reverse("airisk_oauth:connect"), {"next": url})
    assert 'name="next"' not in page.content.decode()
    back = authorize(start(browser, next=url))
    pending = PendingAuthorization.objects.get()
    assert pending.next == ""
    assert_connected(browser.get(back))


@pytest.mark.once
@pytest.mark.parametrize("url", [url for url in BAD_NEXT if len(url) <= MAX_NEXT], ids=repr)
def test_unsafe_next_in_the_row_is_ignored(url: str, browser: Client, airisk: World) -> None:
    back = authorize(start(browser))
    PendingAuthorization.objects.update(next=url)
    assert_connected(browser.get(back))


# Whose flow it is


@pytest.fixture
def tom(db: None) -> User:
    """Another user, who is the same person on AIRisk as Mia."""
    tom = User.objects.create_user("tom")
    AIRiskIdentity.objects.create(user=tom, userid="user_42")
    return tom


def assert_of_no_use(back: str, stranger: Client, airisk: World) -> str:
    """Let another browser bring a callback; return the page that it gets."""
    before = rows_of_flows_and_tokens()
    page = assert_refused(stranger.get(back), 403)
    assert (len(token_requests(airisk)), rows_of_flows_and_tokens()) == (0, before)
    return page


@pytest.mark.usefixtures("login_required")
@pytest.mark.parametrize("name", ["mia", "tom"])
def test_state_only_works_in_its_own_browser(name: str, browser: Client, mia: User, tom: User, airisk: World) -> None:
    back = authorize(start(browser))
    stranger = Client()
    stranger.force_login(User.objects.get(username=name))
    start(stranger)
    assert "not started here" in assert_of_no_use(back, stranger, airisk)
    assert_connected(browser.get(back))


@pytest.mark.usefixtures("login_required")
def test_state_only_works_for_its_own_user(browser: Client, tom: User, airisk: World) -> None:
    back = authorize(start(browser))
    stranger = Client()
    stranger.force_login(tom)
    start(stranger)
    stranger.cookies[browsers.COOKIE] = browser.cookies[browsers.COOKIE].value
    assert "not started here" in assert_of_no_use(back, stranger, airisk)
    assert_connected(browser.get(back))


@pytest.mark.usefixtures("login_required")
def test_state_only_works_for_a_signed_in_user(browser: Client, airisk: World) -> None:
    back = authorize(start(browser))
    assert "You are not signed in here" in assert_of_no_use(back, Client(), airisk)
    assert_connected(browser.get(back))


def test_state_only_works_for_its_own_deployment(browser: Client, mia: User, airisk: World) -> None:
    AIRiskIdentity.objects.create(user=mia, deployment="second", userid="user_42")
    back = authorize(start(browser))
    elsewhere = back.replace("/callback/", "/callback/second/")
    assert_refused(browser.get(elsewhere), 403)
    assert len(token_requests(airisk)) == 0
    assert_connected(browser.get(back))


@pytest.mark.parametrize("backend", ["ModelBackend", "AllowAllUsersModelBackend"])
def test_user_deactivated_meanwhile_gets_no_token(
    backend: str, mia: User, client: Client, airisk: World, settings: "Settings"
) -> None:
    settings.AUTHENTICATION_BACKENDS = [f"django.contrib.auth.backends.{backend}"]
    client.force_login(mia)
    back = authorize(start(client))
    mia.is_active = False
    mia.save()
    assert_refused(client.get(back), 403)
    assert (len(token_requests(airisk)), AIRiskToken.objects.count()) == (0, 0)


def assert_impersonation_refused(how: str, browser: Client, airisk: World, settings: "Settings") -> None:
    """Start a flow as the person at the browser, and let the callback and another start come while they act as Mia."""
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.ActAs"]
    back = authorize(start(browser))
    PendingAuthorization.objects.update(user=User.objects.get(username="mia"))
    before = rows_of_flows_and_tokens()
    page = browser.post(reverse("airisk_oauth:connect"), headers={"X-Act": how})
    assert page.status_code == 403
    assert "Sign in with your own account" in page.content.decode()
    assert_refused(browser.get(back, headers={"X-Act": how}), 403)
    assert (len(token_requests(airisk)), rows_of_flows_and_tokens()) == (0, before)


@pytest.mark.parametrize("mark", ["is_hijacked", "is_impersonate"])
def test_user_marked_impersonated_cannot_connect(
    mark: str, browser: Client, airisk: World, settings: "Settings"
) -> None:
    assert_impersonation_refused(mark, browser, airisk, settings)


def test_user_of_anothers_session_cannot_connect(
    browser: Client, tom: User, airisk: World, settings: "Settings"
) -> None:
    browser.force_login(tom)
    assert_impersonation_refused("session", browser, airisk, settings)


def test_user_without_a_session_can_connect(mia: User, client: Client, airisk: World, settings: "Settings") -> None:
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.ActAs"]
    act: dict[str, Any] = {"headers": {"X-Act": "session"}}
    response = client.post(reverse("airisk_oauth:connect"), **act)
    assert_connected(client.get(authorize(response["Location"]), **act))


# Once, and in time


def test_flow_expires_after_ten_minutes(browser: Client, airisk: World) -> None:
    back = authorize(start(browser))
    begun = PendingAuthorization.objects.get().created_at
    PendingAuthorization.objects.update(created_at=begun - timedelta(minutes=10))
    before = rows_of_flows_and_tokens()
    assert "That took too long" in assert_refused(browser.get(back), 410)
    assert (len(token_requests(airisk)), rows_of_flows_and_tokens()) == (0, before)
    PendingAuthorization.objects.update(created_at=begun - timedelta(minutes=9))
    assert_connected(browser.get(back))


def test_three_tabs_can_finish_in_reverse(browser: Client, airisk: World) -> None:
    paths = ["/one/", "/two/", "/three/"]
    backs = [authorize(start(browser, next=path)) for path in paths]
    for path, back in reversed(list(zip(paths, backs, strict=True))):
        assert_connected(browser.get(back), path)


def test_repeated_callback_gets_the_first_result(browser: Client, airisk: World) -> None:
    back = authorize(start(browser, next="/conversations/"))
    for _ in range(3):
        assert_connected(browser.get(back), "/conversations/")
        PendingAuthorization.objects.update(created_at=timezone.now() - timedelta(minutes=20))
    assert len(token_requests(airisk)) == 1
    assert browser.get(CONNECTION).content.decode().count(SUCCESS) == 1


def complete(user: User, browser: str, query: Secret) -> flow.Connected:
    """Complete a flow as the callback does."""
    return flow.complete(conf.deployment(), user, flow.begun(conf.deployment(), user, browser=browser, query=query))


def test_failed_try_keeps_where_to_go_next(browser: Client, airisk: World) -> None:
    back = authorize(start(browser, next="/needs/?a=1"))
    response = browser.get(back.replace("code=", "code=x"))
    assert response["Location"] == "/airisk/?next=%2Fneeds%2F%3Fa%3D1"
    page = browser.get(response["Location"]).text
    assert '<input type="hidden" name="next" value="/needs/?a=1">' in page
    # It was tried already: this page has a link to the page with the button.
    assert 'href="/airisk/?next=%2Fneeds%2F%3Fa%3D1"' in browser.get(back).text


def test_repeated_callbacks_get_their_own_results(browser: Client, mia: User, airisk: World) -> None:
    failed, connected = (authorize(start(browser, next=path)) for path in ("/one/", "/two/"))
    browser.get(failed.replace("code=", "code=x"))
    browser.get(connected)
    for _time in range(2):
        assert_refused(browser.get(failed), 410)
        assert_connected(browser.get(connected), "/two/")
    query = Secret(urlsplit(connected).query)
    again = complete(mia, binding_of(browser), query)
    assert again == (PendingAuthorization.objects.get(next="/two/"), False)
    assert len(token_requests(airisk)) == 2


@pytest.mark.django_db(transaction=True)
def test_repeated_callback_waits_for_the_first(browser: Client, airisk: World) -> None:
    back = authorize(start(browser))
    airisk.switches.latency = 0.5
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(at_once, lambda: same_browser(browser).get(back))
        while not first.done() and not PendingAuthorization.objects.exclude(spent_at=None).exists():
            time.sleep(0.01)
        assert_connected(browser.get(back))
        assert AIRiskToken.objects.count() == 1
        assert_connected(first.result()[0])
    assert len(token_requests(airisk)) == 1


@pytest.mark.django_db(transaction=True)
def test_twenty_callbacks_at_once_make_one_call(browser: Client, airisk: World) -> None:
    back = authorize(start(browser))
    for response in at_once(*[lambda: same_browser(browser).get(back)] * 20):
        assert_connected(response)
    assert (len(token_requests(airisk)), AIRiskToken.objects.count()) == (1, 1)


def assert_not_tried_again(back: str, browser: Client, airisk: World) -> None:
    posts = len(token_requests(airisk))
    asked = time.monotonic()
    assert "This connection was already tried" in assert_refused(browser.get(back), 410)
    assert time.monotonic() - asked < 5
    assert (len(token_requests(airisk)), AIRiskToken.objects.count()) == (posts, 0)


def test_failed_flow_is_not_tried_again(browser: Client, airisk: World) -> None:
    back = authorize(start(browser))
    airisk.switches.outage = True
    browser.get(back)
    airisk.switches.outage = False
    assert_not_tried_again(back, browser, airisk)


def test_flow_of_dead_process_is_not_tried_again(browser: Client, airisk: World) -> None:
    back = authorize(start(browser))
    longer_ago_than_a_callback_waits = timezone.now() - timedelta(seconds=16)
    PendingAuthorization.objects.update(spent_at=longer_ago_than_a_callback_waits)
    assert_not_tried_again(back, browser, airisk)


@pytest.mark.django_db(transaction=True)
def test_double_click_starts_two_usable_flows(browser: Client, airisk: World, settings: "Settings") -> None:
    """The browser goes where the second answer leads, whichever of the two cookies it keeps."""
    browser.get(reverse("airisk_oauth:connect"))
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.Together"]
    urls = at_once(*[lambda: start(same_browser(browser))] * 2)
    settings.MIDDLEWARE = settings.MIDDLEWARE[:-1]
    for url in urls:
        assert_connected(browser.get(authorize(url)))


@pytest.mark.parametrize(
    "headers",
    [{"Sec-Purpose": "prefetch"}, {"Sec-Purpose": "prefetch;prerender"}, {"Purpose": "prefetch"}],
    ids=str,
)
def test_prefetch_leaves_the_state_unspent(headers: dict[str, str], browser: Client, airisk: World) -> None:
    back = authorize(start(browser))
    before = rows_of_flows_and_tokens()
    response = browser.get(back, headers=headers)
    assert (response.status_code, response.content) == (425, b"")
    assert (len(token_requests(airisk)), rows_of_flows_and_tokens()) == (0, before)
    assert_connected(browser.get(back))


@pytest.mark.parametrize("method", ["head", "post", "options"])
def test_callback_accepts_nothing_but_get(method: str, browser: Client, airisk: World) -> None:
    back = authorize(start(browser))
    before = rows_of_flows_and_tokens()
    assert getattr(browser, method)(back).status_code == 405
    assert (len(token_requests(airisk)), rows_of_flows_and_tokens()) == (0, before)
    assert_connected(browser.get(back))


@pytest.mark.usefixtures("atomic_requests")
@pytest.mark.django_db(transaction=True)
def test_state_stays_spent_if_a_transaction_fails(browser: Client, airisk: World) -> None:
    """Under ``ATOMIC_REQUESTS``, where AIRisk fails."""
    back = authorize(start(browser))
    airisk.switches.outage = True
    assert browser.get(back).status_code == 302
    airisk.switches.outage = False
    assert PendingAuthorization.objects.get().outcome == "failed"
    assert_not_tried_again(back, browser, airisk)


@pytest.mark.usefixtures("atomic_requests")
@pytest.mark.django_db(transaction=True)
def test_state_stays_spent_if_the_view_crashes(browser: Client, airisk: World, settings: "Settings") -> None:
    """Under ``ATOMIC_REQUESTS``, where the whole request is rolled back."""
    back = authorize(start(browser))
    browser.raise_request_exception = False
    options = settings.AIRISK_OAUTH
    set_option(settings, USERID="tests.support.resolvers.next_answer")
    answers.clear()
    assert browser.get(back).status_code == 500
    settings.AIRISK_OAUTH = options
    assert PendingAuthorization.objects.get().outcome == "failed"
    assert_not_tried_again(back, browser, airisk)


# What a callback can bring


@pytest.mark.parametrize(
    "query",
    [
        "",
        "code={code}",
        "state={state}",
        "state=&code={code}",
        "state=None&code={code}",
        "state={state}x&code={code}",
        "state={state}&state={state}&code={code}",
        "state={state}&code={code}&code={code}",
        "state={state}&code={code}&x=1&x=2",
        "state={state}&code[]={code}",
        "state[]={state}&code={code}",
        "state={state}&code=",
        "state={state}&code=a%00b",
        "state={state}%00&code={code}",
        "state={state}&code=%FF",
        "state=%FF&code={code}",
        "state={state}&code=\xff",
        "state={state}&code=a%20b",
        "state={state}&code=a%0D%0Ab",
        "state={state}&code=%C3%A4",
        "state={state}&code=" + "A" * 1024 * 1024,
        "state=" + "A" * 1024 * 1024 + "&code={code}",
        "state={state}&code={code}&error=access_denied",
        "state={state}&code={code}&" + "&".join(f"x{number}=1" for number in range(60)),
        "error=access_denied",
        "error=access_denied&state=unknown",
        "state={state}&code={code}&iss=https%3A%2F%2Fevil.example",
        "state={state}&code={code}&iss=",
    ],
    ids=lambda query: query[:60] or "nothing",
)
def test_forged_callback_changes_nothing(query: str, browser: Client, airisk: World) -> None:
    back = authorize(start(browser))
    given = query.format(**dict(parse_qsl(urlsplit(back).query)))
    before = rows_of_flows_and_tokens()
    assert_refused(browser.get(reverse("airisk_oauth:callback"), QUERY_STRING=given))
    assert (len(token_requests(airisk)), rows_of_flows_and_tokens()) == (0, before)
    assert_connected(browser.get(back))


def test_forged_callbacks_cost_no_call_and_no_row(browser: Client, mia: User, airisk: World) -> None:
    back = authorize(start(browser))
    before, value = rows_of_flows_and_tokens(), binding_of(browser)
    for query in ("state=another&code=code", "state=another"):
        for _time in range(500):
            with pytest.raises(ConnectionFailed):
                complete(mia, value, Secret(query))
    assert (len(token_requests(airisk)), rows_of_flows_and_tokens()) == (0, before)
    assert_connected(browser.get(back))


anything = st.binary(max_size=40) | st.sampled_from([b"&", b"=", b"%", b"%00", b"%ff", b"&code=", b"&state=", b"&iss="])


@pytest.mark.once
@hypothesis_settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(st.floats(0, 1), anything)
@example(1, bytes(range(256)))
@example(0, bytes(range(256)))
def test_callback_answers_whatever_bytes_it_gets(browser: Client, airisk: World, where: float, added: bytes) -> None:
    """A real callback with anything inserted anywhere."""
    path, _, query = authorize(start(browser)).partition("?")
    raw, posts, tokens = query.encode(), len(token_requests(airisk)), AIRiskToken.objects.count()
    place = round(where * len(raw))
    # As a server hands it over (PEP 3333).
    given = (raw[:place] + added + raw[place:]).decode("latin-1")
    response: Any = browser.get(path, QUERY_STRING=given)
    if response.status_code == 302:
        assert_connected(response)
        assert len(token_requests(airisk)) - posts <= 1
    else:
        assert_refused(response, 400, 403)
        assert (len(token_requests(airisk)), AIRiskToken.objects.count()) == (posts, tokens)


@pytest.mark.parametrize("ending", ["", "/"])
def test_expected_issuer_is_accepted(ending: str, browser: Client, airisk: World, airisk_url: str) -> None:
    issuer = urlencode({"iss": f"{airisk_url}/sandbox{ending}"})
    assert_connected(browser.get(f"{authorize(start(browser))}&{issuer}"))


@pytest.mark.parametrize("is_staff", [True, False])
def test_words_of_an_error_redirect_are_not_shown(
    is_staff: bool, browser: Client, mia: User, airisk: World, caplog: pytest.LogCaptureFixture
) -> None:
    mia.is_staff = is_staff
    mia.save()
    state = state_of(start(browser))
    hostile = {"error": "<script>alert(1)</script>", "error_description": "a\r\nSet-Cookie: evil=1", "error_uri": "//x"}
    with caplog.at_level(logging.DEBUG):
        response = browser.get(reverse("airisk_oauth:callback"), {"state": state, **hostile})
        page = page_after(response, browser)
    assert "AIRisk refused the connection" in page
    for part in ("alert(1)", "evil=1", "error_description"):
        assert part not in f"{page}{response.headers}{response.cookies}{caplog.text}"
    assert PendingAuthorization.objects.get().outcome == "failed"
    assert len(token_requests(airisk)) == 0


def _none(airisk: World, settings: "Settings", back: str) -> str:
    return back


def _refuse(airisk: World, settings: "Settings", back: str) -> str:
    state = parse_qs(urlsplit(back).query)["state"][0]
    return f"{urlsplit(back).path}?error=access_denied&state={state}"


def _unknown_client(airisk: World, settings: "Settings", back: str) -> str:
    settings.AIRISK_OAUTH_SANDBOX_CLIENTS = {}
    return back


def _wrong_code(airisk: World, settings: "Settings", back: str) -> str:
    return back.replace("code=", "code=x")


def _outage(airisk: World, settings: "Settings", back: str) -> str:
    airisk.switches.outage = True
    return back


def _malformed(airisk: World, settings: "Settings", back: str) -> str:
    airisk.switches.malformed = True
    return back


REFUSED = "AIRisk refused the connection"
DENIED = "You did not allow the connection"
TROUBLES = pytest.mark.parametrize(
    ("trouble", "words", "details", "status"),
    [
        (_refuse, DENIED, r"by redirect: access_denied", 403),
        (_unknown_client, REFUSED, r"status 401: Unauthorized \(traceId 00-\w+-\w+-00\)", 403),
        (_wrong_code, REFUSED, r"status 400: Invalid Code", 403),
        (_outage, "AIRisk could not be reached", r"status 503", 502),
        (_malformed, "AIRisk&#x27;s answer could not be used", r"not the JSON", 502),
    ],
)
Trouble = Callable[[World, "Settings", str], str]


@TROUBLES
@pytest.mark.parametrize("is_staff", [True, False])
def test_failure_is_shown_and_keeps_the_old_token(
    trouble: Trouble,
    words: str,
    details: str,
    status: int,
    is_staff: bool,
    browser: Client,
    mia: User,
    airisk: World,
    settings: "Settings",
    heard: Heard,
) -> None:
    mia.is_staff = is_staff
    mia.save()
    give_token(mia)
    token = AIRiskToken.objects.values().get()
    back = trouble(airisk, settings, authorize(start(browser)))
    page = page_after(browser.get(back), browser)
    assert words in page
    assert bool(re.search(details, page)) is is_staff
    assert "traceId" not in page or is_staff
    assert AIRiskToken.objects.values().get() == token
    assert PendingAuthorization.objects.get().outcome == "failed"
    assert heard == []


@TROUBLES
@pytest.mark.usefixtures("no_messages")
def test_failure_has_a_page_without_messages(
    trouble: Trouble,
    words: str,
    details: str,
    status: int,
    browser: Client,
    airisk: World,
    settings: "Settings",
) -> None:
    back = trouble(airisk, settings, authorize(start(browser)))
    response = browser.get(back)
    assert response.status_code == status
    page = response.content.decode()
    assert words in page
    assert not re.search(details, page)
    assert response["Referrer-Policy"] == "strict-origin"


@pytest.mark.usefixtures("no_messages")
def test_connecting_works_without_messages(browser: Client, airisk: World) -> None:
    assert_connected(connect(browser))
    assert browser.post(reverse("airisk_oauth:disconnect"))["Location"] == CONNECTION
    assert "Not connected" in browser.get(CONNECTION).content.decode()


@pytest.mark.parametrize(
    "change", [lambda rows: rows.update(userid="user_1"), lambda rows: rows.delete()], ids=["changed", "removed"]
)
def test_identity_changed_before_callback_fails(
    change: Callable[[Any], object], browser: Client, mia: User, airisk: World, caplog: pytest.LogCaptureFixture
) -> None:
    back = authorize(start(browser))
    change(AIRiskIdentity.objects.filter(user=mia))
    assert "Your AIRisk identity has changed" in page_after(browser.get(back), browser)
    assert f"{mia.pk} could not be connected to deployment default: identity changed\n" in caplog.text
    assert (len(token_requests(airisk)), AIRiskToken.objects.count()) == (0, 0)
    assert_refused(browser.get(back), 410)


@pytest.mark.parametrize("last", ["user_1", None])
def test_identity_changed_during_the_call_fails(
    last: str | None, browser: Client, airisk: World, settings: "Settings"
) -> None:
    options = settings.AIRISK_OAUTH
    set_option(settings, USERID="tests.support.resolvers.next_answer")
    answers[:] = ["user_42", "user_42", last]
    response = connect(browser)
    settings.AIRISK_OAUTH = options
    assert "Your AIRisk identity has changed" in page_after(response, browser)
    assert (len(token_requests(airisk)), AIRiskToken.objects.count(), answers) == (1, 0, [])


# Without a browser


def test_page_in_a_silent_flow_needs_a_person(airisk: World) -> None:
    airisk.switches.login_page = True
    deployment = conf.deployment("second")
    with OAuthClient(deployment) as client, pytest.raises(ConnectionRequired) as caught:
        client.run(obtain_silently, deployment, "user_42")
    assert (str(caught.value), caught.value.deployment) == ("AIRisk requires a sign-in in a browser.", "second")
    assert caught.value.__suppress_context__


# Disconnect


def test_disconnecting_expired_token_is_brief(browser: Client, mia: User) -> None:
    give_token(mia, ends_in=-60)
    page = page_after(browser.post(reverse("airisk_oauth:disconnect")), browser)
    assert "You are disconnected from AIRisk." in page
    assert "cannot revoke" not in page


@pytest.mark.parametrize("page", ["connection", "connect"])
def test_pages_answer_head_requests(page: str, browser: Client, mia: User) -> None:
    assert browser.head(reverse(f"airisk_oauth:{page}")).status_code == 200


@pytest.mark.parametrize("alias", ["default", "second"])
def test_disconnecting_deletes_only_own_token(
    alias: str, browser: Client, mia: User, django_user_model: type[User], airisk: World
) -> None:
    tom = django_user_model.objects.create_user("tom")
    others = [give_token(mia, deployment={"default": "second", "second": "default"}[alias])]
    others += [give_token(user, deployment=alias) for user in (tom, None)]
    own = give_token(mia, deployment=alias)
    page = page_after(browser.post(reverse("airisk_oauth:disconnect", args=[alias])), browser)
    assert set(AIRiskToken.objects.all()) == set(others)
    assert own.expires_at is not None
    assert "AIRisk itself forgets the connection at" in page
    assert f"at {date_format(own.expires_at, 'DATETIME_FORMAT')}" in page
    assert airisk.journal == []


def test_disconnecting_says_a_token_has_no_expiry(browser: Client, mia: User) -> None:
    give_token(mia, ends_in=None)
    page = page_after(browser.post(reverse("airisk_oauth:disconnect")), browser)
    assert "AIRisk itself did not say when it forgets the connection." in page


def test_disconnecting_leads_back_to_next(browser: Client) -> None:
    response = browser.post(reverse("airisk_oauth:disconnect"), {"next": "/conversations/?page=2"})
    assert response["Location"] == "/conversations/?page=2"


@pytest.mark.parametrize("url", BAD_NEXT, ids=lambda url: repr(url[:40]))
def test_disconnecting_ignores_an_unsafe_next(url: str, browser: Client) -> None:
    assert browser.post(reverse("airisk_oauth:disconnect"), {"next": url})["Location"] == CONNECTION


def test_disconnecting_without_token_says_nothing(browser: Client, heard: Heard) -> None:
    page = page_after(browser.post(reverse("airisk_oauth:disconnect")), browser)
    assert "airisk-messages" not in page.partition("<main")[2]
    assert heard == []


def test_token_is_disconnected_only_once(mia: User, heard: Heard) -> None:
    token = give_token(mia)
    stale = AIRiskToken.objects.get()
    flow.disconnect(token)
    flow.disconnect(stale)
    assert len(heard) == 1


@pytest.mark.parametrize("method", ["get", "head"])
def test_disconnecting_needs_a_post(method: str, browser: Client, mia: User) -> None:
    give_token(mia)
    assert getattr(browser, method)(reverse("airisk_oauth:disconnect")).status_code == 405
    assert AIRiskToken.objects.exists()


# Secrets


@pytest.fixture
def query_is_read(settings: "Settings") -> None:
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.reading_the_query"]


def assert_query_blanked(request: Any, back: str) -> None:
    assert (request.GET.dict(), request.get_full_path()) == ({}, reverse("airisk_oauth:callback"))
    for value in parse_qs(urlsplit(back).query).values():
        assert value[0] not in f"{request!r}{request.META}"


@pytest.mark.usefixtures("query_is_read")
def test_callback_blanks_the_query_under_wsgi(browser: Client, airisk: World) -> None:
    back = authorize(start(browser))
    response: Any = browser.get(back, RAW_URI=back, REQUEST_URI=back)
    assert_connected(response)
    assert_query_blanked(response.wsgi_request, back)


@pytest.mark.usefixtures("query_is_read")
def test_callback_blanks_the_query_under_asgi(browser: Client, airisk: World) -> None:
    back = authorize(start(browser))
    client = AsyncClient()
    client.cookies = browser.cookies
    response: Any = async_to_sync(client.get)(back)
    assert_connected(response)
    assert_query_blanked(response.asgi_request, back)
    assert response.asgi_request.scope["query_string"] == b""


@pytest.mark.parametrize(
    ("trouble", "keeps_old_token"),
    [(_none, False), (_unknown_client, True), (_wrong_code, True), (_outage, True), (_malformed, True)],
)
def test_connecting_shows_no_secret(
    trouble: Trouble,
    keeps_old_token: bool,
    browser: Client,
    mia: User,
    airisk: World,
    settings: "Settings",
    caplog: pytest.LogCaptureFixture,
) -> None:
    mia.is_staff = True
    mia.save()
    secret = f"canary-{secrets.token_hex(8)}"
    set_option(settings, CLIENT_SECRET=secret)
    give_token(mia, access_token="canary-of-the-old-token")
    url = start(browser)
    back = trouble(airisk, settings, authorize(url))
    code = parse_qs(urlsplit(back).query)["code"][0]
    seen = []
    with caplog.at_level(logging.DEBUG):
        for visit in (browser.get, Client().get):
            response: Any = visit(back)
            seen.append(f"{response.content!r}{response.headers}{response.cookies}{response!r}")
        page = browser.get(CONNECTION)
        seen.append(f"{page.content!r}{page.headers}")
    canaries = [
        code,
        state_of(url),
        secret,
        browser.cookies[browsers.COOKIE].value,
        AIRiskToken.objects.get().access_token,
    ]
    assert ("canary-of-the-old-token" in canaries) is keeps_old_token
    # Its own server and its HTTP client are what the test looks through, not what it looks at.
    logs = [record for record in caplog.records if not record.name.startswith(("urllib3", "django.server"))]
    seen += [f"{record.getMessage()}{record.__dict__}" for record in logs]
    seen += [everything_stored(), repr(dict(browser.session)), repr(PendingAuthorization.objects.all())]
    for canary in canaries:
        assert all(canary not in text for text in seen)


@pytest.mark.parametrize("debug", [True, False])
def test_crash_in_the_callback_shows_no_secret(
    debug: bool, browser: Client, airisk: World, settings: "Settings"
) -> None:
    """What Django shows under DEBUG, and mails without it, is the local variables of every function on the way."""
    settings.DEBUG = debug
    secret = f"canary-{secrets.token_hex(8)}"
    set_option(settings, CLIENT_SECRET=secret)
    url = start(browser)
    back = authorize(url)
    code = parse_qs(urlsplit(back).query)["code"][0]
    tokens: list[str] = []
    reports: list[str] = []

    def crash(instance: AIRiskToken, **kwargs: Any) -> None:
        tokens.append(instance.access_token)
        raise RuntimeError

    def report(request: HttpRequest, **kwargs: Any) -> None:
        reporter = ExceptionReporter(request, *sys.exc_info())
        reports.extend([reporter.get_traceback_html(), reporter.get_traceback_text()])

    browser.raise_request_exception = False
    post_save.connect(crash, AIRiskToken)
    got_request_exception.connect(report)
    try:
        response = browser.get(back)
    finally:
        post_save.disconnect(crash, AIRiskToken)
        got_request_exception.disconnect(report)
    assert response.status_code == 500
    assert PendingAuthorization.objects.get().outcome == "failed"
    assert not AIRiskToken.objects.exists()
    [html, _text] = reports
    assert "grant" in html
    for canary in (code, state_of(url), secret, browser.cookies[browsers.COOKIE].value, *tokens):
        assert all(canary not in text for text in (*reports, response.content.decode()))


def test_refused_token_is_not_shown_as_connected(
    browser: Client, mia: User, airisk: World, settings: "Settings"
) -> None:
    settings.AIRISK_OAUTH = {"default": {**settings.AIRISK_OAUTH["default"], "SILENT_RENEWAL": False}}
    give_token(mia, ends_in=None)
    for _once_noted in range(2):
        assert browser.get("/conversations/")["Location"].startswith("/airisk/connect/")
    assert AIRiskToken.objects.get().failure_count == 1
    assert "Please reconnect" in browser.get(reverse("airisk_oauth:connect")).content.decode()
    assert browser.get("/needs/").status_code == 302
    connect(browser)
    assert browser.get("/needs/").status_code == 200
