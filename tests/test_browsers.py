"""What binds a flow to its browser: a cookie of ours, which no other request of a site can overwrite."""

from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth import SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.auth.views import LogoutView
from django.contrib.sessions.backends.db import SessionStore
from django.test import Client
from django.urls import include, path

from airisk_oauth.connecting import browsers
from airisk_oauth.models import AIRiskIdentity, AIRiskToken, PendingAuthorization
from airisk_oauth.sandbox.world import World
from tests.support.browsing import authorize, connect, start

if TYPE_CHECKING:
    from http.cookies import Morsel

    from pytest_django import Settings

urlpatterns = [path("logout/", LogoutView.as_view(next_page="/")), path("", include("tests.urls"))]


def cookie_of(response: Any) -> "Morsel[str]":
    """Return the cookie that a response sets."""
    morsel: Morsel[str] = response.cookies[browsers.COOKIE]
    return morsel


def tab_of(browser: Client) -> Client:
    """Return another tab, with the cookies that the browser has now."""
    tab = Client()
    tab.cookies.load({name: morsel.value for name, morsel in browser.cookies.items()})
    return tab


@pytest.mark.parametrize(
    ("method", "page"), [("get", "/airisk/"), ("get", "/airisk/connect/"), ("post", "/airisk/connect/")]
)
def test_cookie_has_the_session_cookies_flags(
    method: str, page: str, browser: Client, airisk: World, settings: "Settings"
) -> None:
    settings.SESSION_COOKIE_SECURE = True
    settings.SESSION_COOKIE_DOMAIN = ".example.com"
    settings.SESSION_COOKIE_PATH = "/airisk/"
    cookie = cookie_of(getattr(browser, method)(page))
    assert {name: cookie[name] for name in ("secure", "httponly", "samesite", "domain", "path", "max-age")} == {
        "secure": True,
        "httponly": True,
        "samesite": "Lax",
        "domain": ".example.com",
        "path": "/airisk/",
        "max-age": 3600,
    }
    assert len(cookie.value) >= 43


@pytest.mark.parametrize(("given", "made"), [("Strict", "Lax"), ("Lax", "Lax"), (False, "Lax"), ("None", "None")])
def test_cookie_survives_the_way_from_airisk(given: Any, made: str, browser: Client, settings: "Settings") -> None:
    settings.SESSION_COOKIE_SAMESITE = given
    assert cookie_of(browser.get("/airisk/"))["samesite"] == made


def test_session_saved_late_loses_no_flow(browser: Client, airisk: World) -> None:
    """A slow request read the session before Connect was clicked, and saves it as it was."""
    slow = browser.session
    slow["read"] = "early"
    back = authorize(start(browser))
    slow.save()
    assert browser.get(back).status_code == 302
    assert AIRiskToken.objects.exists()


@pytest.mark.parametrize("engine", ["signed_cookies", "cache"])
def test_any_session_engine_works(engine: str, client: Client, mia: User, airisk: World, settings: "Settings") -> None:
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{engine}"
    settings.SESSION_SAVE_EVERY_REQUEST = True
    client.force_login(mia)
    assert connect(client)["Location"] == "/airisk/"


def test_cookie_value_stays_from_page_to_page(browser: Client, airisk: World) -> None:
    values = {cookie_of(browser.get(page)).value for page in ("/airisk/", "/airisk/connect/", "/airisk/")}
    values.add(cookie_of(browser.post("/airisk/connect/")).value)
    assert len(values) == 1


def test_two_browsers_have_two_cookie_values(browser: Client, mia: User) -> None:
    other = Client()
    other.force_login(mia)
    assert cookie_of(browser.get("/airisk/")).value != cookie_of(other.get("/airisk/")).value


@pytest.mark.parametrize("odd", ["", "x", "x" * 42, "x" * 65, f"{'x' * 43} ", f"{'ä' * 43}"])
def test_cookie_value_not_ours_is_replaced(odd: str, browser: Client) -> None:
    browser.cookies[browsers.COOKIE] = odd
    assert cookie_of(browser.get("/airisk/")).value != odd


def test_cookie_value_is_random_without_a_session(rf: Any) -> None:
    values = {browsers.cookie_value_or_new(rf.get("/")) for _time in range(100)}
    assert len(values) == 100
    assert all(len(value) == 43 for value in values)


def test_cookie_value_hides_the_session_key(browser: Client) -> None:
    assert str(browser.session.session_key) not in cookie_of(browser.get("/airisk/")).value


def test_callback_without_the_cookie_is_refused(browser: Client, airisk: World) -> None:
    back = authorize(start(browser))
    value = browser.cookies.pop(browsers.COOKIE)
    assert browser.get(back).status_code == 403
    browser.cookies[browsers.COOKIE] = value.value
    assert browser.get(back).status_code == 302


@pytest.mark.parametrize("keeps", [0, 1])
def test_double_click_without_cookie_works(keeps: int, browser: Client, airisk: World) -> None:
    """On one of the site's own pages the browser has no cookie yet, and it keeps that of either response."""
    tabs = [tab_of(browser), tab_of(browser)]
    backs = [authorize(start(tab)) for tab in tabs]
    for back in backs:
        assert tabs[keeps].get(back).status_code == 302


@pytest.mark.urls(__name__)
@pytest.mark.parametrize("second", ["mia", "tom"])
def test_signing_out_ends_started_flows(second: str, browser: Client, mia: User, airisk: World) -> None:
    """The cookie outlives signing out, as it does in a real browser."""
    tom = User.objects.create_user("tom")
    AIRiskIdentity.objects.create(user=tom, userid="user_42")
    back = authorize(start(browser))
    browser.post("/logout/")
    assert browser.get(back).status_code == 403
    browser.force_login(User.objects.get(username=second))
    assert start(browser)
    assert browser.get(back).status_code == 403
    assert not AIRiskToken.objects.exists()


def test_flow_ends_when_somebody_else_signs_in(browser: Client, mia: User, airisk: World) -> None:
    back = authorize(start(browser))
    browser.force_login(User.objects.create_user("tom"))
    browser.force_login(mia)
    assert browser.get(back).status_code == 403


@pytest.mark.parametrize(("key", "binds"), [(SESSION_KEY, True), ("a message", False)])
def test_only_a_signed_in_session_binds_a_flow(key: str, binds: bool, rf: Any, db: None) -> None:
    """A user who is signed in by a header may get a session on the way, for a message for example."""
    request, value = rf.get("/"), browsers.cookie_value_or_new(rf.get("/"))
    request.session = SessionStore()
    request.session[key] = "1"
    request.session.save()
    assert (browsers.binding(request, value) != value) is binds


def test_flow_without_session_is_bound_to_cookie(rf: Any) -> None:
    value = browsers.cookie_value_or_new(rf.get("/"))
    assert browsers.binding(rf.get("/"), value) == value


def test_cookie_value_is_stored_as_a_hash_only(browser: Client, airisk: World) -> None:
    response = browser.post("/airisk/connect/")
    value = cookie_of(response).value
    assert value not in repr([*PendingAuthorization.objects.values(), dict(browser.session)])
    assert value not in f"{response!r}{response['Location']}{browser.get('/airisk/').content!r}"
    assert (
        repr(browsers.cookie_value(response.wsgi_request) or browsers.cookie_value_or_new(response.wsgi_request))
        == "'[secret]'"
    )
