"""Single-page apps, htmx and Turbo in a real browser, as the documentation says.

Needs Debian's ``chromium``. Without it these tests are skipped, except in CI, where that is a failure.
"""

import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.template import RequestContext, Template
from django.urls import include, path
from playwright.sync_api import Page, expect

from airisk_oauth.models import AIRiskIdentity, AIRiskToken
from airisk_oauth.sandbox.world import World
from tests.support import assets
from tests.support.chromium import assert_said, click, disconnect, needs_chromium
from tests.support.pages import snippet
from tests.support.people import give_token

DOCUMENTATION = "docs/scripts.md"
LIBRARIES = ("htmx-2", "htmx-4", "turbo")

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.urls(__name__), needs_chromium, pytest.mark.once]


def app(request: HttpRequest) -> HttpResponse:
    """A page with the documentation's functions for scripts."""
    functions = snippet(DOCUMENTATION, "const status") + snippet(DOCUMENTATION, "async function conversations")
    return HttpResponse(f"<!DOCTYPE html><title>App</title><script>{functions}</script>")


def enhanced(request: HttpRequest, library: str, content: str) -> HttpResponse:
    """A page, all of whose links and forms a library takes over."""
    template = Template(BASE.replace("LIBRARY", library).replace("{% block content %}{% endblock %}", content))
    return HttpResponse(template.render(RequestContext(request)))


def with_tag(request: HttpRequest, library: str) -> HttpResponse:
    links = '<a href="/airisk/">Connection</a> <a href="/needs/">Needs</a>'
    return enhanced(request, library, "{% load airisk_oauth %}{% airisk_connection %}" + links)


def with_buttons(request: HttpRequest, library: str) -> HttpResponse:
    return enhanced(request, library, snippet(DOCUMENTATION, "hx-get"))


def with_form(request: HttpRequest, library: str) -> HttpResponse:
    """A form of a site that did not read the documentation."""
    form = '<form method="post" action="/airisk/connect/">{% csrf_token %}<button>Go</button></form>'
    return enhanced(request, library, form)


def with_documented_form(request: HttpRequest, library: str) -> HttpResponse:
    return enhanced(request, library, snippet(DOCUMENTATION, "data-turbo"))


urlpatterns = [
    path("app/", app),
    path("<str:library>/tag/", with_tag),
    path("<str:library>/buttons/", with_buttons),
    path("<str:library>/form/", with_form),
    path("<str:library>/documented/", with_documented_form),
    path("", include(assets)),
    path("", include("tests.urls")),
]

#: htmx 4 inherits what says so, and htmx 2 everything.
BASE = """<!DOCTYPE html>
<html><head><title>Site</title><script src="{% url "asset" "LIBRARY.min.js" %}"></script></head>
<body hx-boost="true" hx-boost:inherited="true"><a href="/LIBRARY/tag/">Site</a>
<main>{% block content %}{% endblock %}</main></body></html>"""


@pytest.fixture
def look(settings: Any, library: str) -> None:
    """The package's own pages in the look of such a site."""
    [engine] = settings.TEMPLATES
    own = ("django.template.loaders.locmem.Loader", {"airisk_oauth/base.html": BASE.replace("LIBRARY", library)})
    loaders = [own, "django.template.loaders.app_directories.Loader"]
    settings.TEMPLATES = [{**engine, "APP_DIRS": False, "OPTIONS": {**engine["OPTIONS"], "loaders": loaders}}]


# fetch()


def test_app_connects_and_disconnects(page: Page, site: str) -> None:
    page.goto("/app/")
    first, second = page.evaluate("status()")
    assert (first["connected"], first["userid"], second["deployment"]) == (False, "user_42", "second")
    # By the page itself: it goes away before the call is over.
    page.evaluate("setTimeout(() => connect('/app/?done'), 0)")
    page.wait_for_url(f"{site}/app/?done")
    first, _second = page.evaluate("status()")
    assert first["connected"]
    assert page.evaluate("expires_at => new Date(expires_at) > Date.now()", first["expires_at"])
    assert not page.evaluate("disconnect()")["connected"]
    assert not AIRiskToken.objects.exists()


def test_app_is_told_why_it_cannot_connect(page: Page, site: str) -> None:
    AIRiskIdentity.objects.all().delete()
    page.goto("/app/")
    assert page.evaluate("status()")
    code = page.evaluate("connect().catch(problem => [problem.code, problem.message])")
    assert code[0] == "no_identity"
    assert code[1].startswith("You have no AIRisk identity yet.")


def test_app_comes_back_after_a_403(page: Page, site: str) -> None:
    page.goto("/app/?tab=2")
    page.evaluate("setTimeout(conversations, 0)")
    page.wait_for_url(f"{site}/airisk/connect/?next=%2Fapp%2F%3Ftab%3D2")
    click(page, "Connect")
    expect(page).to_have_url(f"{site}/app/?tab=2")
    assert page.evaluate("conversations()")["status"] == 200


# htmx


@pytest.mark.parametrize("library", ["htmx-2", "htmx-4"])
def test_htmx_button_connects_and_disconnects(page: Page, site: str, library: str) -> None:
    page.goto(f"/{library}/buttons/")
    with page.expect_navigation(url="**/buttons/"):
        click(page, "Connect")
    assert AIRiskToken.objects.get().userid == "user_42"
    click(page, "Conversations")
    assert_said(page, "lastUpdated")
    with page.expect_navigation(url="**/buttons/"):
        click(page, "Disconnect")
    assert not AIRiskToken.objects.exists()


@pytest.mark.parametrize("library", ["htmx-2", "htmx-4"])
def test_htmx_call_leads_to_connect_and_back(page: Page, site: str, library: str) -> None:
    page.goto(f"/{library}/buttons/?tab=2")
    click(page, "Conversations")
    page.wait_for_url(re.compile(r"/airisk/connect/\?next="))
    click(page, "Connect")
    expect(page).to_have_url(f"{site}/{library}/buttons/?tab=2")


@pytest.mark.parametrize("library", ["htmx-2", "htmx-4"])
def test_boosted_form_of_a_site_connects(page: Page, site: str, library: str) -> None:
    page.goto(f"/{library}/form/")
    click(page, "Go")
    expect(page).to_have_url(f"{site}/airisk/")
    assert_said(page, "You are connected to AIRisk.")


# Pages that a library takes over


@pytest.mark.parametrize("library", LIBRARIES)
def test_tag_connects_and_disconnects(page: Page, site: str, library: str) -> None:
    page.goto(f"/{library}/tag/")
    with page.expect_navigation(url="**/tag/"):
        click(page, "Connect")
    assert_said(page, ", as user_42.")
    with page.expect_navigation(url="**/tag/"):
        disconnect(page)
    assert_said(page, "Not connected")


@pytest.mark.usefixtures("look")
@pytest.mark.parametrize("library", LIBRARIES)
def test_link_leads_to_the_page_and_back(page: Page, site: str, library: str, mia: User, airisk: World) -> None:
    give_token(mia)
    page.goto(f"/{library}/tag/")
    page.get_by_role("link", name="Connection").click()
    expect(page).to_have_url(f"{site}/airisk/")
    expect(page.get_by_role("heading", level=1)).to_have_text("Your AIRisk connection")
    page.get_by_role("link", name="Site", exact=True).click()
    expect(page).to_have_url(f"{site}/{library}/tag/")
    expect(page.get_by_role("link", name="Needs")).to_be_visible()
    page.go_back()
    expect(page).to_have_url(f"{site}/airisk/")
    expect(page.get_by_role("heading", level=1)).to_have_text("Your AIRisk connection")
    with page.expect_navigation(url="**/airisk/"):
        disconnect(page)
    assert not AIRiskToken.objects.exists()


@pytest.mark.usefixtures("look")
@pytest.mark.parametrize("library", LIBRARIES)
def test_link_to_a_view_leads_to_connect(page: Page, site: str, library: str) -> None:
    page.goto(f"/{library}/tag/")
    page.get_by_role("link", name="Needs").click()
    page.wait_for_url(re.compile(r"/airisk/connect/\?next="))
    with page.expect_navigation(url=re.compile(f"/needs/|/{library}/tag/")):
        click(page, "Connect")
    assert AIRiskToken.objects.exists()


def test_documented_form_leaves_turbo(page: Page, site: str) -> None:
    page.goto("/turbo/documented/")
    click(page, "Connect")
    expect(page).to_have_url(f"{site}/airisk/")
    assert_said(page, "You are connected to AIRisk.")
