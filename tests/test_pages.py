"""The pages: what a user reads on them, and that every page is sound HTML without foreign assets."""

import re
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.fernet import Fernet
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.template import Context, RequestContext, Template
from django.test import Client
from django.urls import include, path, reverse
from django.utils import timezone, translation
from django.utils.formats import date_format

from airisk_oauth.connecting.pages import connection_status
from airisk_oauth.models import AIRiskIdentity, AIRiskToken
from airisk_oauth.sandbox.world import World
from tests.support.browsing import connect
from tests.support.options import set_option
from tests.support.pages import snippet
from tests.support.people import give_token

if TYPE_CHECKING:
    from pytest_django import Settings

DISCONNECT = ["Reconnect", "Disconnect"]
REFUSED = {"failure_kind": "refused", "failure_count": 1, "failed_at": timezone.now()}
DOCUMENTATION = "docs/pages.md"
VOID = {"meta", "input", "br", "link", "img"}


class Soundness(HTMLParser):
    """Collects what is wrong with a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.wrong: list[str] = []
        self.feed(page)
        self.close()
        self.wrong += [f"<{tag}> is not closed" for tag in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id" and value in self.ids:
                self.wrong.append(f"id {value} twice")
            if name == "id":
                self.ids.add(str(value))
            if name in ("src", "href", "action") and not re.match(r"/(?!/)", str(value)):
                self.wrong.append(f"{name} leads to {value}")
            if name.startswith("on") or name == "style":
                self.wrong.append(f"inline {name}: a Content-Security-Policy forbids it")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}> closes nothing")


def read(response: Any, status: int = 200) -> str:
    """Check that a page is sound HTML, and return its text."""
    assert response.status_code == status
    assert "no-store" in response["Cache-Control"]
    page = response.content.decode()
    assert Soundness(page).wrong == []
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page.partition("<main")[2])).split())


def buttons(response: Any) -> list[str]:
    return re.findall(r"<button[^>]*>([^<]+)</button>", response.content.decode())


def until(token: AIRiskToken) -> str:
    assert token.expires_at is not None
    return f"{date_format(token.expires_at, 'DATETIME_FORMAT')} UTC"


@pytest.fixture
def only(airisk: World, settings: "Settings") -> Iterator["Settings"]:
    """A site with one deployment, to which opening a page makes no call."""
    settings.AIRISK_OAUTH = {"default": settings.AIRISK_OAUTH["default"]}
    yield settings
    assert airisk.journal == []


def assert_shown(browser: Client, status: str, words: str, offered: list[str]) -> None:
    """Check what both pages show of the only deployment."""
    for name in ("connection", "connect"):
        response = browser.get(reverse(f"airisk_oauth:{name}"))
        text = read(response)
        assert f"AIRisk {status} " in text
        assert words in text
        assert (", as user_42." in text) is (status == "Connected")
        assert buttons(response) == offered


@pytest.mark.usefixtures("only")
def test_user_without_identity_reads_whom_to_ask(browser: Client) -> None:
    AIRiskIdentity.objects.all().delete()
    assert_shown(browser, "Not connected", "You have no AIRisk identity yet. Ask an administrator", [])


@pytest.mark.usefixtures("only")
def test_user_who_never_connected_can_connect(browser: Client) -> None:
    assert_shown(browser, "Not connected", "On AIRisk you are user_42.", ["Connect"])


def test_connected_user_sees_the_expiry_date(browser: Client, mia: User, only: "Settings") -> None:
    token = give_token(mia)
    assert_shown(browser, "Connected", f"until {until(token)} and is renewed automatically.", DISCONNECT)
    set_option(only, SILENT_RENEWAL=False)
    assert_shown(browser, "Connected", f"until {until(token)}. Then connect again.", DISCONNECT)


@pytest.mark.usefixtures("only")
@pytest.mark.parametrize(
    ("token", "words"),
    [
        pytest.param({"ends_in": None}, "gave no expiry date", id="no expiry"),
        pytest.param({"ends_in": -60}, "renewed when this site next needs it", id="expired"),
        pytest.param(
            {"ends_in": -60, **REFUSED, "failure_kind": "unavailable"},
            "renewed when this site next needs it",
            id="outage",
        ),
    ],
)
def test_token_that_can_be_renewed_is_connected(token: dict[str, Any], words: str, browser: Client, mia: User) -> None:
    give_token(mia, **token)
    assert_shown(browser, "Connected", words, DISCONNECT)


@pytest.mark.usefixtures("only")
@pytest.mark.parametrize("kind", ["refused", "person"])
def test_token_that_needs_a_person_asks_for_one(kind: str, browser: Client, mia: User) -> None:
    give_token(mia, ends_in=-60, **{**REFUSED, "failure_kind": kind})
    assert_shown(browser, "Please reconnect", "Your connection can no longer be used.", DISCONNECT)


def test_expired_token_by_hand_needs_a_person(browser: Client, mia: User, only: "Settings") -> None:
    set_option(only, SILENT_RENEWAL=False)
    give_token(mia, ends_in=-60)
    assert_shown(browser, "Please reconnect", "Your connection can no longer be used.", DISCONNECT)


@pytest.mark.usefixtures("only")
def test_changed_identity_asks_for_reconnecting(browser: Client, mia: User) -> None:
    give_token(mia)
    AIRiskIdentity.objects.update(userid="user_1")
    assert_shown(browser, "Please reconnect", "Your connection can no longer be used.", DISCONNECT)


@pytest.mark.usefixtures("only")
def test_removed_identity_still_can_disconnect(browser: Client, mia: User) -> None:
    give_token(mia)
    AIRiskIdentity.objects.all().delete()
    assert_shown(browser, "Not connected", "You have no AIRisk identity yet", ["Disconnect"])


def test_unreadable_token_asks_for_reconnecting(browser: Client, mia: User, settings: "Settings") -> None:
    settings.AIRISK_OAUTH_ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    give_token(mia)
    settings.AIRISK_OAUTH_ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    response = browser.get(reverse("airisk_oauth:connection"))
    assert "AIRisk Please reconnect" in read(response)
    assert buttons(response)[:2] == DISCONNECT
    assert AIRiskToken.objects.exists()


def test_each_deployment_has_its_own_section(browser: Client, mia: User, django_user_model: type[User]) -> None:
    AIRiskIdentity.objects.create(user=mia, deployment="second", userid="user_7")
    give_token(mia, deployment="second", userid="user_7")
    # Neither another user's token nor the application's counts.
    give_token(django_user_model.objects.create_user("tom"))
    give_token(None)
    response = browser.get(reverse("airisk_oauth:connection"))
    text = read(response)
    assert "AIRisk Not connected Once you are connected, this site can use AIRisk in your name" in text
    assert "AIRisk “second” Connected Connected since" in text
    assert ", as user_7." in text
    assert buttons(response) == ["Connect", *DISCONNECT]


def test_other_deployments_are_not_named(browser: Client, mia: User) -> None:
    assert "second" not in read(browser.get(reverse("airisk_oauth:connection")))
    AIRiskIdentity.objects.all().delete()
    assert "AIRisk Not connected You have no AIRisk identity yet." in read(
        browser.get(reverse("airisk_oauth:connection"))
    )


def test_pages_lead_back_to_the_site(browser: Client) -> None:
    for query, back in (("", "/"), ("?next=/a/", "/a/"), ("?next=//evil.example/", "/")):
        assert f'<a href="{back}">Back to the site</a>' in browser.get(f"/airisk/{query}").text


def test_times_are_shown_in_the_sites_time_zone(browser: Client, mia: User, settings: "Settings") -> None:
    settings.TIME_ZONE = "Asia/Tokyo"
    token = give_token(mia)
    there = date_format(timezone.localtime(token.expires_at), "DATETIME_FORMAT")
    assert there != until(token)
    assert there in read(browser.get(reverse("airisk_oauth:connection")))
    browser.post(reverse("airisk_oauth:disconnect"))
    assert there in read(browser.get(reverse("airisk_oauth:connection")))


def test_connect_page_passes_next_on(browser: Client) -> None:
    response = browser.get(reverse("airisk_oauth:connect"), {"next": '/a/?"><b>'})
    read(response)
    assert 'name="next" value="/a/?&quot;&gt;&lt;b&gt;"' in response.content.decode()


def test_userid_is_escaped_on_the_page(browser: Client, mia: User) -> None:
    AIRiskIdentity.objects.update(userid="<script>42</script>")
    read(browser.get(reverse("airisk_oauth:connection")))
    assert "<script>" not in browser.get(reverse("airisk_oauth:connection")).content.decode()


def test_problem_page_links_to_the_connection(browser: Client) -> None:
    response = browser.get(reverse("airisk_oauth:callback"))
    assert "This link does not work" in read(response, 400)
    assert f'href="{reverse("airisk_oauth:connection")}"' in response.content.decode()


@pytest.mark.parametrize(("language", "start"), [("en", '<html lang="en">'), ("ar", '<html lang="ar" dir="rtl">')])
def test_page_declares_its_language(language: str, start: str, browser: Client, settings: "Settings") -> None:
    settings.LANGUAGE_CODE = language
    with translation.override(language):
        assert start in browser.get(reverse("airisk_oauth:connection")).content.decode()


# In a site's own look, and on its own pages, as the documentation says


@pytest.mark.parametrize(
    ("name", "title", "status"),
    [
        ("connection", "Your AIRisk connection", 200),
        ("connect", "Connect to AIRisk", 200),
        ("callback", "This link does not work", 400),
    ],
)
def test_pages_take_on_the_look_of_the_site(
    name: str, title: str, status: int, browser: Client, settings: "Settings"
) -> None:
    base = "<title>{% block title %}{% endblock %} of Site</title><main>{% block main %}{% endblock %}</main>"
    templates = {"site/base.html": base, "airisk_oauth/base.html": snippet(DOCUMENTATION, "extends")}
    [engine] = settings.TEMPLATES
    loaders = [
        ("django.template.loaders.locmem.Loader", templates),
        "django.template.loaders.app_directories.Loader",
    ]
    settings.TEMPLATES = [{**engine, "APP_DIRS": False, "OPTIONS": {**engine["OPTIONS"], "loaders": loaders}}]
    response = browser.get(reverse(f"airisk_oauth:{name}"))
    assert title in read(response, status)
    assert f"<title>{title} of Site</title>" in response.content.decode()
    assert "<style" not in response.content.decode()


def own_page(request: HttpRequest) -> HttpResponse:
    return HttpResponse(
        Template(f"<main>{snippet(DOCUMENTATION, '{% airisk_connection %}')}</main>").render(RequestContext(request))
    )


def profile(request: HttpRequest) -> HttpResponse:
    """The documentation's own view, whose template is a site's."""
    given: dict[str, Any] = {}
    exec(snippet(DOCUMENTATION, "def profile"), given)  # noqa: S102 - the page's own
    response: HttpResponse = given["profile"](request)
    return response


urlpatterns = [path("own/", own_page), path("profile/", profile), path("", include("tests.urls"))]


@pytest.mark.urls(__name__)
def test_tag_shows_the_connection_and_leads_back(browser: Client, airisk: World) -> None:
    page = browser.get("/own/?a=b").content.decode()
    assert Soundness(page).wrong == []
    assert "On AIRisk you are user_42." in page
    assert "AIRisk “second”" in page
    assert 'name="csrfmiddlewaretoken"' in page
    [back] = re.findall(r'name="next" value="([^"]*)"', page)
    assert connect(browser, next=unescape(back))["Location"] == "/own/?a=b"
    page = browser.get("/own/?a=b").content.decode()
    assert ", as user_42." in page
    assert re.findall(r'name="next" value="([^"]*)"', page) == [back, back]


@pytest.mark.urls(__name__)
@pytest.mark.parametrize("page", ["/airisk/", "/airisk/connect/", "/own/", "/admin/airisk_oauth/airisktoken/"])
def test_forms_opt_out_of_turbo_and_hx_boost(page: str, browser: Client, mia: User) -> None:
    User.objects.update(is_staff=True, is_superuser=True)
    give_token(mia)
    forms = re.findall(
        r'<form[^>]*action="[^"]*/(?:connect|disconnect|obtain)/[^>]*>', browser.get(page).content.decode()
    )
    assert forms
    assert all('data-turbo="false" hx-boost="false"' in form for form in forms)


@pytest.mark.urls(__name__)
def test_tag_shows_nothing_to_anonymous_visitors(client: Client, db: None) -> None:
    assert client.get("/own/").content.split() == [b"<main>", b"</main>"]
    assert not client.cookies


@pytest.mark.urls(__name__)
def test_tag_leads_back_to_no_answer_to_a_post(browser: Client, airisk: World) -> None:
    assert 'name="next"' not in browser.post("/own/").content.decode()


def test_tag_without_a_request_says_what_it_needs() -> None:
    with pytest.raises(ImproperlyConfigured, match="the request"):
        Template("{% load airisk_oauth %}{% airisk_connection %}").render(Context())


# In Python


@pytest.fixture
def profile_page(browser: Client, settings: "Settings") -> Client:
    """A browser at a site whose page shows what the documentation names."""
    names = ("deployment.alias", "userid", "token.expires_at.year", "is_connected", "connect_url", "disconnect_url")
    template = "".join(f"{{{{ connection.{name} }}}} " for name in names)
    [engine] = settings.TEMPLATES
    loaders = [("django.template.loaders.locmem.Loader", {"site/profile.html": template})]
    settings.TEMPLATES = [{**engine, "APP_DIRS": False, "OPTIONS": {**engine["OPTIONS"], "loaders": loaders}}]
    settings.ROOT_URLCONF = __name__
    return browser


def test_view_shows_a_connected_user(profile_page: Client, mia: User) -> None:
    token = give_token(mia)
    assert token.expires_at is not None
    seen = profile_page.get("/profile/").content.decode().split()
    year = str(token.expires_at.year)
    assert seen == ["default", "user_42", year, "True", "/airisk/connect/", "/airisk/disconnect/"]


def test_view_shows_an_unconnected_user(profile_page: Client) -> None:
    seen = profile_page.get("/profile/").content.decode().split()
    assert seen == ["default", "user_42", "False", "/airisk/connect/", "/airisk/disconnect/"]


def test_status_needs_no_request(mia: User, airisk: World) -> None:
    status = connection_status(mia, "second")
    assert (status.deployment.alias, status.userid, status.token) == ("second", None, None)
    assert (status.is_connected, status.connect_url) == (False, "/airisk/connect/second/")
    assert (status.right_host_url, status.right_host) == (None, "")
    assert airisk.journal == []


def test_status_of_a_wrong_deployment_is_an_error(mia: User) -> None:
    with pytest.raises(ImproperlyConfigured, match="nowhere"):
        connection_status(mia, "nowhere")
