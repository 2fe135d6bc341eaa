"""The pages: what a user is told in each state, and that every page is sound HTML without foreign assets."""

import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
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

from airisk_oauth.models import AIRiskIdentity, AIRiskToken
from airisk_oauth.sandbox.world import World
from tests.support.browsing import connect
from tests.support.people import give_token

if TYPE_CHECKING:
    from pytest_django import Settings

CONNECT, DISCONNECT = ["Connect"], ["Reconnect", "Disconnect"]
REFUSED = {"failure_kind": "refused", "failure_count": 1, "failed_at": timezone.now()}
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
    """The page's text, the page itself having been found sound."""
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


@pytest.mark.parametrize(
    ("userid", "token", "options", "state", "words", "offered"),
    [
        pytest.param(None, None, {}, "Not connected", "You have no AIRisk identity yet", [], id="nobody"),
        pytest.param("user_42", None, {}, "Not connected", "in your name, as user_42.", CONNECT, id="not connected"),
        pytest.param(
            "user_42", {}, {}, "Connected", "until {until} and is renewed automatically.", DISCONNECT, id="good"
        ),
        pytest.param("user_42", {"ends_in": None}, {}, "Connected", "gave no expiry date", DISCONNECT, id="endless"),
        pytest.param(
            "user_42", {}, {"SILENT_RENEWAL": False}, "Connected", "valid until {until}.", DISCONNECT, id="by hand"
        ),
        pytest.param(
            "user_42", {"ends_in": -60}, {}, "Connected", "the next call renews it", DISCONNECT, id="ended, renewable"
        ),
        pytest.param(
            "user_42",
            {"ends_in": -60},
            {"SILENT_RENEWAL": False},
            "Please reconnect",
            "can no longer be used",
            DISCONNECT,
            id="ended, by hand",
        ),
        pytest.param(
            "user_42", {"ends_in": -60, **REFUSED}, {}, "Please reconnect", "no longer", DISCONNECT, id="refused"
        ),
        pytest.param(
            "user_42",
            {"ends_in": -60, **REFUSED, "failure_kind": "person"},
            {},
            "Please reconnect",
            "no longer",
            DISCONNECT,
            id="a person is asked for",
        ),
        pytest.param(
            "user_42",
            {"ends_in": -60, **REFUSED, "failure_kind": "unavailable"},
            {},
            "Connected",
            "the next call renews it",
            DISCONNECT,
            id="outage",
        ),
        pytest.param("user_1", {}, {}, "Please reconnect", "no longer", DISCONNECT, id="somebody else now"),
        pytest.param(
            None, {}, {}, "Please reconnect", "You have no AIRisk identity yet", DISCONNECT[1:], id="nobody any more"
        ),
    ],
)
def test_the_connection_page_says_where_a_user_stands(
    userid: str | None,
    token: dict[str, Any] | None,
    options: dict[str, Any],
    state: str,
    words: str,
    offered: list[str],
    browser: Client,
    mia: User,
    airisk: World,
    settings: "Settings",
) -> None:
    settings.AIRISK_OAUTH = {"default": {**settings.AIRISK_OAUTH["default"], **options}}
    AIRiskIdentity.objects.all().delete()
    if userid is not None:
        AIRiskIdentity.objects.create(user=mia, userid=userid)
    stored = None if token is None else give_token(mia, **token)
    if stored is not None and stored.expires_at is not None:
        words = words.format(until=until(stored))
    for url in (reverse("airisk_oauth:connection"), reverse("airisk_oauth:connect")):
        response = browser.get(url)
        text = read(response)
        assert f"AIRisk {state} " in text
        assert words in text
        assert ("You are user_42 on AIRisk." in text) is (state == "Connected")
        assert buttons(response) == offered
    assert airisk.journal == []


def test_a_token_that_cannot_be_opened_asks_for_reconnecting(browser: Client, mia: User, settings: "Settings") -> None:
    settings.AIRISK_OAUTH_ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    give_token(mia)
    settings.AIRISK_OAUTH_ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    response = browser.get(reverse("airisk_oauth:connection"))
    assert "AIRisk Please reconnect" in read(response)
    assert buttons(response)[:2] == DISCONNECT
    assert AIRiskToken.objects.exists()


def test_each_deployment_has_its_own_part(browser: Client, mia: User, django_user_model: type[User]) -> None:
    AIRiskIdentity.objects.create(user=mia, deployment="second", userid="user_7")
    give_token(mia, deployment="second", userid="user_7")
    # Neither what another user has nor what the application has is this user's.
    give_token(django_user_model.objects.create_user("tom"))
    give_token(None)
    response = browser.get(reverse("airisk_oauth:connection"))
    text = read(response)
    assert "AIRisk Not connected Connect to let this site call AIRisk in your name, as user_42." in text
    assert "AIRisk “second” Connected You are user_7 on AIRisk." in text
    assert buttons(response) == [*CONNECT, *DISCONNECT]


def test_times_are_told_in_the_time_zone_of_the_site(browser: Client, mia: User, settings: "Settings") -> None:
    settings.TIME_ZONE = "Asia/Tokyo"
    token = give_token(mia)
    there = date_format(timezone.localtime(token.expires_at), "DATETIME_FORMAT")
    assert there != until(token)
    assert there in read(browser.get(reverse("airisk_oauth:connection")))
    browser.post(reverse("airisk_oauth:disconnect"))
    assert there in read(browser.get(reverse("airisk_oauth:connection")))


def test_the_connect_page_carries_next_on(browser: Client) -> None:
    response = browser.get(reverse("airisk_oauth:connect"), {"next": '/a/?"><b>'})
    read(response)
    assert 'name="next" value="/a/?&quot;&gt;&lt;b&gt;"' in response.content.decode()


def test_a_userid_is_escaped(browser: Client, mia: User) -> None:
    AIRiskIdentity.objects.update(userid="<script>42</script>")
    read(browser.get(reverse("airisk_oauth:connection")))
    assert "<script>" not in browser.get(reverse("airisk_oauth:connection")).content.decode()


def test_a_problem_has_a_page_with_a_way_on(browser: Client) -> None:
    response = browser.get(reverse("airisk_oauth:callback"))
    assert "This link does not come from AIRisk" in read(response, 400)
    assert f'href="{reverse("airisk_oauth:connection")}"' in response.content.decode()


@pytest.mark.parametrize(("language", "start"), [("en", '<html lang="en">'), ("ar", '<html lang="ar" dir="rtl">')])
def test_a_page_names_its_language(language: str, start: str, browser: Client, settings: "Settings") -> None:
    settings.LANGUAGE_CODE = language
    with translation.override(language):
        assert start in browser.get(reverse("airisk_oauth:connection")).content.decode()


# In a site's own look, and on a page of its own, as the documentation says


def snippet(words: str) -> str:
    page = (Path(__file__).resolve().parent.parent / "docs" / "pages.md").read_text(encoding="utf-8")
    [found] = [text for text in re.findall(r"^```django\n(.*?)^```", page, re.DOTALL | re.MULTILINE) if words in text]
    return str(found)


def test_a_site_puts_the_pages_into_its_own_look(browser: Client, settings: "Settings") -> None:
    base = "<title>{% block title %}{% endblock %} of Site</title><main>{% block main %}{% endblock %}</main>"
    templates = {"site/base.html": base, "airisk_oauth/base.html": snippet("extends")}
    [engine] = settings.TEMPLATES
    loaders = [
        ("django.template.loaders.locmem.Loader", templates),
        "django.template.loaders.app_directories.Loader",
    ]
    settings.TEMPLATES = [{**engine, "APP_DIRS": False, "OPTIONS": {**engine["OPTIONS"], "loaders": loaders}}]
    for name, title, status in (
        ("connection", "Your AIRisk connection", 200),
        ("connect", "Connect to AIRisk", 200),
        ("callback", "This link does not come from AIRisk", 400),
    ):
        response = browser.get(reverse(f"airisk_oauth:{name}"))
        assert title in read(response, status)
        assert f"<title>{title} of Site</title>" in response.content.decode()
        assert "<style" not in response.content.decode()


def own_page(request: HttpRequest) -> HttpResponse:
    return HttpResponse(Template(f"<main>{snippet('airisk_connection')}</main>").render(RequestContext(request)))


urlpatterns = [path("own/", own_page), path("", include("tests.urls"))]


@pytest.mark.urls(__name__)
def test_a_site_shows_the_connection_on_a_page_of_its_own_and_both_buttons_lead_back_there(
    browser: Client, airisk: World
) -> None:
    page = browser.get("/own/?a=b").content.decode()
    assert Soundness(page).wrong == []
    assert "Connect to let this site call AIRisk in your name, as user_42." in page
    assert "AIRisk “second”" in page
    assert 'name="csrfmiddlewaretoken"' in page
    [back] = re.findall(r'name="next" value="([^"]*)"', page)
    assert connect(browser, next=unescape(back))["Location"] == "/own/?a=b"
    page = browser.get("/own/?a=b").content.decode()
    assert "You are user_42 on AIRisk." in page
    assert re.findall(r'name="next" value="([^"]*)"', page) == [back, back]


@pytest.mark.urls(__name__)
def test_somebody_who_is_not_signed_in_sees_nothing_of_it(client: Client, db: None) -> None:
    assert client.get("/own/").content.split() == [b"<main>", b"</main>"]
    assert not client.cookies


@pytest.mark.urls(__name__)
def test_the_answer_to_a_post_is_no_page_to_come_back_to(browser: Client, airisk: World) -> None:
    assert 'name="next"' not in browser.post("/own/").content.decode()


def test_without_the_request_in_its_context_the_tag_says_what_it_needs() -> None:
    with pytest.raises(ImproperlyConfigured, match="the request"):
        Template("{% load airisk_oauth %}{% airisk_connection %}").render(Context())
