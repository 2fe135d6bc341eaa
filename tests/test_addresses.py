"""Where a site may include our pages: in any namespace, more than once, for some hosts only, or not at all."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from django.conf.urls.i18n import i18n_patterns
from django.contrib.auth.models import User
from django.core.checks import run_checks
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.template import RequestContext, Template
from django.test import Client
from django.urls import include, path
from django.utils import translation

from airisk_oauth import conf, views
from airisk_oauth.exceptions import ConnectionRequired
from airisk_oauth.models import AIRiskToken
from airisk_oauth.sandbox.world import World
from airisk_oauth.tokens.stored import StoredToken
from airisk_oauth.urls import urlpatterns as ours
from tests import site_views
from tests.support.browsing import authorize
from tests.support.people import give_token

if TYPE_CHECKING:
    from pytest_django import Settings


def with_tag(request: HttpRequest) -> HttpResponse:
    return HttpResponse(Template("{% load airisk_oauth %}{% airisk_connection %}").render(RequestContext(request)))


OTHERS = (
    path("", include(site_views)),
    path("tag/", with_tag),
    path("sandbox/", include("airisk_oauth.sandbox.urls")),
    path("second-sandbox/", include("airisk_oauth.sandbox.urls", namespace="second_sandbox")),
)
PLAIN = path("airisk/", include("airisk_oauth.urls"))
INSTANCE = path("airisk/", include(("airisk_oauth.urls", "airisk_oauth"), namespace="air"))
WITHIN = path("", include(([PLAIN], "site")))
INCLUSIONS: dict[str, Any] = {
    "instance": INSTANCE,
    "within a namespace": WITHIN,
    "within two": path("", include(([WITHIN], "app"), namespace="portal")),
    "instance within a namespace": path("", include(([INSTANCE], "site"))),
    "another app name": path("airisk/", include((ours, "accounts"))),
    "no namespace": path("airisk/", include(ours)),
}


def include_ours(settings: Any, *patterns: Any) -> None:
    settings.ROOT_URLCONF = (*patterns, *OTHERS)


def link_of(page: str) -> str:
    """Return where a page with one link leads."""
    [link] = re.findall(r'<a[^>]* href="([^"]*)"', page)
    return str(link)


@pytest.fixture(params=list(INCLUSIONS))
def included(request: Any, settings: "Settings") -> None:
    include_ours(settings, INCLUSIONS[request.param])


@pytest.mark.usefixtures("included")
def test_connecting_works_in_any_namespace(browser: Client, airisk: World) -> None:
    page = browser.get(browser.get("/needs/")["Location"])
    assert 'action="/airisk/connect/"' in page.content.decode()
    response = browser.post("/airisk/connect/", {"next": "/needs/"})
    assert browser.get(authorize(response["Location"]))["Location"] == "/needs/"
    response = browser.get(authorize(browser.post("/airisk/connect/")["Location"]))
    assert response["Location"] == "/airisk/"
    page = browser.get("/airisk/")
    assert "Disconnect" in page.content.decode()
    assert 'action="/airisk/connect/second/"' not in page.content.decode()
    assert browser.post("/airisk/disconnect/")["Location"] == "/airisk/"
    assert not AIRiskToken.objects.exists()


@pytest.mark.usefixtures("included")
def test_problem_page_leads_on_in_any_namespace(browser: Client) -> None:
    response = browser.get("/airisk/callback/?code=a&state=b")
    assert response.status_code == 403
    assert link_of(response.content.decode()) == "/airisk/"


@pytest.mark.usefixtures("included")
def test_failure_is_shown_in_any_namespace(browser: Client, airisk: World) -> None:
    back = authorize(browser.post("/airisk/connect/")["Location"])
    airisk.switches.outage = True
    assert browser.get(back)["Location"] == "/airisk/"
    assert "could not be reached" in browser.get("/airisk/").content.decode()


@pytest.mark.usefixtures("included")
def test_tag_has_its_forms_in_any_namespace(browser: Client, mia: User) -> None:
    give_token(mia)
    page = browser.get("/tag/").content.decode()
    assert re.findall(r'action="([^"]*)"', page) == ["/airisk/connect/", "/airisk/disconnect/"]


@pytest.mark.usefixtures("included")
def test_connection_required_names_the_page(browser: Client, mia: User) -> None:
    response = browser.get("/conversations/", headers={"X-Requested-With": "fetch"})
    assert response.json()["connect_url"] == "/airisk/connect/"
    with pytest.raises(ConnectionRequired) as caught:
        StoredToken(conf.deployment("second"), mia).check()
    assert caught.value.connect_url == "/airisk/connect/second/"


@pytest.mark.usefixtures("included")
def test_check_finds_callback_in_any_namespace(settings: "Settings") -> None:
    settings.LOGIN_URL = "https://login.example.com/"
    assert run_checks(tags=["airisk_oauth"]) == []
    wrong = {**settings.AIRISK_OAUTH["default"], "REDIRECT_URI": "https://app.example.com/callback/"}
    settings.AIRISK_OAUTH = {"default": wrong}
    assert [message.id for message in run_checks(tags=["airisk_oauth"])] == ["airisk_oauth.W001"]


def test_pages_link_within_their_own_inclusion(browser: Client, mia: User, settings: "Settings") -> None:
    give_token(mia)
    second = path("b/", include(([path("airisk/", include("airisk_oauth.urls"))], "site"), namespace="b"))
    first = path("a/", include(([path("airisk/", include("airisk_oauth.urls"))], "site"), namespace="a"))
    include_ours(settings, first, PLAIN, second)
    for prefix in ("/a", "/b", ""):
        page = browser.get(f"{prefix}/airisk/connect/").content.decode()
        assert re.findall(r'action="([^"]*)"', page) == [f"{prefix}/airisk/connect/", f"{prefix}/airisk/disconnect/"]
        assert link_of(browser.get(f"{prefix}/airisk/callback/").content.decode()) == f"{prefix}/airisk/"
    # Elsewhere on the site it is the one that has Django's default name.
    assert 'action="/airisk/connect/"' in browser.get("/tag/").content.decode()


def test_current_app_chooses_among_inclusions(rf: Any, mia: User, settings: "Settings") -> None:
    other = path("other/", include(("airisk_oauth.urls", "airisk_oauth"), namespace="other"))
    include_ours(settings, PLAIN, other)
    request = rf.get("/")
    assert conf.page_url("connection", request=request) == "/airisk/"
    request.current_app = "other"
    assert conf.page_url("connection", request=request) == "/other/"


def test_inclusion_with_url_arguments_is_skipped(settings: "Settings") -> None:
    include_ours(settings, path("<slug:team>/airisk/", include("airisk_oauth.urls")))
    assert conf.page_url("connect") is None
    include_ours(settings, INSTANCE, path("<slug:team>/airisk/", include("airisk_oauth.urls")))
    assert conf.page_url("connect") == "/airisk/connect/"


def test_pages_follow_the_language_in_the_path(browser: Client, settings: "Settings") -> None:
    include_ours(settings, *i18n_patterns(PLAIN))
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.middleware.locale.LocaleMiddleware"]
    for language in ("en", "de"):
        # Outside of a server the language of a request stays that of its thread.
        with translation.override(language):
            page = browser.get(f"/{language}/airisk/connect/").content.decode()
        assert f'action="/{language}/airisk/connect/"' in page


def choose_urls(get_response: Callable[[HttpRequest], HttpResponseBase]) -> Callable[[HttpRequest], Any]:
    """Give some hosts other URLs, as packages for subdomains do."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        if request.get_host() == "app.example.com":
            request.urlconf = (INCLUSIONS["within two"], *OTHERS)  # type: ignore[assignment]
        return get_response(request)

    return middleware


def test_urlconf_of_the_request_decides(browser: Client, settings: "Settings") -> None:
    include_ours(settings)
    settings.MIDDLEWARE = [f"{__name__}.choose_urls", *settings.MIDDLEWARE]
    response = browser.get("/needs/", headers={"host": "app.example.com"})
    assert urlsplit(response["Location"]).path == "/airisk/connect/"
    page = browser.get("/airisk/connect/", headers={"host": "app.example.com"})
    assert 'action="/airisk/connect/"' in page.content.decode()


def test_tag_has_no_buttons_without_our_urls(browser: Client, mia: User, settings: "Settings") -> None:
    give_token(mia)
    include_ours(settings)
    page = browser.get("/tag/").content.decode()
    assert ", as user_42." in page
    assert "<form" not in page


def test_lone_callback_leads_to_the_front_page(browser: Client, airisk: World, settings: "Settings") -> None:
    """A site may replace every page of ours except the callback."""
    wired = (
        path("go/", views.connect, name="go"),
        path("airisk/callback/", views.callback, name="back"),
    )
    include_ours(settings, *wired)
    assert browser.get("/needs/")["Location"].startswith("/go/")
    response = browser.get(authorize(browser.post("/go/")["Location"]))
    assert (response.status_code, response["Location"]) == (302, "/")
    assert "<a" not in browser.get("/airisk/callback/").content.decode().partition("<main")[2]
