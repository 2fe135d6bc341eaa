"""People at another host of the site than the one that AIRisk sends them back to."""

import re
from html import unescape
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.template import RequestContext, Template
from django.test import Client
from django.urls import include, path

from airisk_oauth.models import PendingAuthorization
from airisk_oauth.sandbox.world import World
from tests.support.browsing import authorize

if TYPE_CHECKING:
    from pytest_django import Settings

RIGHT = "https://app.example.com/airisk/connect/"


def with_tag(request: HttpRequest) -> HttpResponse:
    return HttpResponse(Template("{% load airisk_oauth %}{% airisk_connection %}").render(RequestContext(request)))


urlpatterns = [path("tag/", with_tag), path("", include("tests.urls"))]


def redirect_to(settings: "Settings", uri: str) -> None:
    settings.AIRISK_OAUTH = {"default": {**settings.AIRISK_OAUTH["default"], "REDIRECT_URI": uri}}


def right_host_of(response: Any) -> str | None:
    """Return the link by which a page leads to the right host, or ``None``."""
    links = re.findall(r'<a class="airisk-button" href="([^"]*)"', response.content.decode())
    return unescape(links[0]) if links else None


@pytest.mark.urls(__name__)
@pytest.mark.parametrize(
    ("page", "link"),
    [("/airisk/", RIGHT), ("/airisk/connect/", RIGHT), ("/tag/", f"{RIGHT}?next=%2Ftag%2F")],
)
def test_page_at_another_host_links_to_right_one(page: str, link: str, browser: Client, settings: "Settings") -> None:
    redirect_to(settings, "https://app.example.com/airisk/callback/")
    response = browser.get(page, headers={"host": "www.app.example.com"})
    assert right_host_of(response) == link
    assert "AIRisk sends you back to app.example.com" in response.content.decode()


@pytest.mark.parametrize(
    ("redirect_uri", "host", "link"),
    [
        ("https://app.example.com/airisk/callback/", "app.example.com", None),
        ("https://app.example.com/airisk/callback/", "APP.example.com.:443", None),
        ("https://app.example.com/airisk/callback/", "example.com", RIGHT),
        ("https://app.example.com/airisk/callback/", "127.0.0.1:8000", RIGHT),
        ("https://app.example.com/airisk/callback/", "localhost", RIGHT),
        ("http://localhost:8000/airisk/callback/", "localhost:9000", None),
        ("http://localhost:8000/airisk/callback/", "127.0.0.1:8000", "http://localhost:8000/airisk/connect/"),
        ("http://127.0.0.1:8000/airisk/callback/", "[::1]:8000", "http://127.0.0.1:8000/airisk/connect/"),
        ("http://[::1]:8000/airisk/callback/", "[::1]", None),
        # The name that a proxy uses for this server, if it does not pass on the browser's own host.
        ("https://app.example.com/airisk/callback/", "web:8000", None),
        ("https://app.example.com/prefix/airisk/callback/", "example.com", RIGHT.replace("/airisk", "/prefix/airisk")),
        ("https://app.example.com/elsewhere/", "example.com", RIGHT),
    ],
)
def test_hosts_are_compared_as_cookies_are(
    redirect_uri: str, host: str, link: str | None, browser: Client, settings: "Settings"
) -> None:
    redirect_to(settings, redirect_uri)
    assert right_host_of(browser.get("/airisk/connect/", headers={"host": host})) == link


@pytest.mark.parametrize(
    ("domain", "has_link"), [(".example.com", False), ("example.com", False), ("www.example.com", True), (None, True)]
)
def test_hosts_that_share_cookies_are_equivalent(
    domain: str | None, has_link: bool, browser: Client, settings: "Settings"
) -> None:
    settings.SESSION_COOKIE_DOMAIN = domain
    page = browser.get("/airisk/connect/", headers={"host": "www.example.com"})
    assert (right_host_of(page) is not None) is has_link


def test_host_passed_on_by_a_proxy_counts(browser: Client) -> None:
    headers = {"host": "10.0.0.7", "x-forwarded-host": "app.example.com, inner.example.com"}
    assert right_host_of(browser.get("/airisk/connect/", headers=headers)) is None


def test_form_at_another_host_goes_to_right_one(browser: Client, mia: User, airisk: World) -> None:
    headers = {"host": "www.app.example.com", "origin": "https://www.app.example.com"}
    response = browser.post("/airisk/connect/second/", {"next": "/needs/?a=b"}, headers=headers)
    assert response.status_code == 302
    assert response["Location"] == f"{RIGHT}second/?{urlencode({'next': '/needs/?a=b'})}"
    assert not PendingAuthorization.objects.exists()


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "www.app.example.com"},
        {"host": "www.app.example.com", "origin": "null"},
        {"host": "www.app.example.com", "origin": "http://["},
        {"host": "web", "origin": "https://app.example.com"},
        {"host": "app.example.com", "origin": "https://forms.example.org"},
    ],
    ids=str,
)
def test_form_goes_on_if_the_host_may_be_right(headers: dict[str, str], browser: Client, airisk: World) -> None:
    response = browser.post("/airisk/connect/", headers=headers)
    assert browser.get(authorize(response["Location"])).status_code == 302


def test_staff_at_another_host_get_a_page(browser: Client, mia: User, airisk: World, settings: "Settings") -> None:
    mia.is_staff = mia.is_superuser = True
    mia.save()
    airisk.switches.login_page = True
    url = "/admin/airisk_oauth/airisktoken/obtain/default/"
    headers = {"host": "www.app.example.com", "origin": "https://www.app.example.com"}
    response = browser.post(url, headers=headers)
    assert response.status_code == 409
    assert "not the address that AIRisk sends you back to" in response.content.decode()
    assert not PendingAuthorization.objects.exists()
    base_url = settings.AIRISK_OAUTH["default"]["BASE_URL"]
    assert browser.post(url, headers={"host": "app.example.com"})["Location"].startswith(base_url)


@pytest.mark.parametrize(("allowed", "link"), [("*", RIGHT), ("app.example.com", None)])
def test_disallowed_host_is_not_led_elsewhere(
    allowed: str, link: str | None, browser: Client, settings: "Settings"
) -> None:
    settings.ALLOWED_HOSTS = [allowed]
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if "Common" not in name]
    response = browser.get("/airisk/connect/", headers={"host": "evil.example"})
    assert right_host_of(response) == link


@pytest.mark.parametrize("host", ["evil.example", "www.app.example.com"])
def test_right_host_comes_from_settings_only(host: str, browser: Client) -> None:
    headers = {"host": host, "x-forwarded-host": "evil.example", "x-forwarded-proto": "gopher"}
    page = browser.get("/airisk/connect/", {"next": "//evil.example/"}, headers=headers)
    assert right_host_of(page) == RIGHT
    assert "evil.example" not in page.content.decode()


def test_tag_names_no_host_without_a_connect_page(browser: Client, settings: "Settings") -> None:
    settings.ROOT_URLCONF = (path("tag/", with_tag), path("", include("tests.site_views")))
    page = browser.get("/tag/", headers={"host": "www.app.example.com"})
    assert right_host_of(page) is None
