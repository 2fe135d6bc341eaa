"""``docs/frameworks.md``, followed to the letter: every snippet runs, each framework in a site of its own."""

import os
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from celery.signals import task_retry
from django.contrib.auth.models import User
from django.http import HttpResponseBase
from django.test import Client
from django.urls import include, path

from airisk_oauth.models import AIRiskToken
from airisk_oauth.sandbox.world import World
from tests.support import pages
from tests.support.pages import module
from tests.support.people import give_token, live_token
from tests.support.processes import assert_promises_kept

PAGE = "docs/frameworks.md"
snippet = partial(pages.snippet, PAGE)
SITES = {
    "rest_framework": [
        "answer_is_streamed",
        "connected_user_is_answered",
        "other_user_is_told_where_to_connect",
        "unknown_client_has_to_sign_in",
        "outage_is_a_503",
    ],
    "ninja": [
        "answer_is_streamed",
        "connected_user_is_answered",
        "other_user_is_told_where_to_connect",
        "unknown_client_has_to_sign_in",
        "outage_is_a_503",
    ],
    "channels": [
        "connected_user_is_answered",
        "socket_can_be_used_after_connecting",
        "visitor_is_told_where_to_connect",
        "outage_is_reported",
    ],
    "strawberry": [
        "connected_user_is_answered",
        "other_user_is_told_where_to_connect",
        "outage_is_a_503",
        "other_errors_stay_as_they_are",
    ],
    "allauth": [
        "visitor_signs_in_and_connects",
        "unconnected_user_is_asked_to_connect_after_login",
        "others_are_asked_nothing_after_login",
    ],
}
views = module("mysite.views", snippet("def export(request)"))
fragments = module("mysite.fragments", snippet("site/_conversations.html"))
handlers = module("mysite.handlers", snippet("def handle(request, error)"))


def in_other_framework(request: Any) -> HttpResponseBase:
    """As any framework does that knows handlers of errors."""
    try:
        request.airisk.get("/api/GetConversations")
    except Exception as error:  # noqa: BLE001 - whatever it is
        answer: HttpResponseBase = handlers.handle(request, error)
        return answer
    raise ValueError


urlpatterns = [
    path("", include("tests.urls")),
    path("export/", views.export),
    path("fragment/", fragments.conversations),
    path("in-other-framework/", in_other_framework),
]
in_views = pytest.mark.urls(__name__)


@pytest.mark.parametrize("site", SITES)
def test_framework_works_as_its_snippets_say(site: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    assert_promises_kept(f"tests.sites.frameworks.{site}", SITES[site], environment)


def test_every_snippet_of_the_page_is_run() -> None:
    files = [Path(__file__), *(pages.ROOT / "tests/sites/frameworks").glob("*.py")]
    source = "".join(file.read_text(encoding="utf-8") for file in files)
    used = {snippet(words) for words in re.findall(r"""snippet\(["'](.*?)["']\)""", source)}
    assert used == {text for _language, text in pages.snippets_of(PAGE)}


# Views of one's own


@in_views
@pytest.mark.once
def test_view_may_catch_and_answer_as_middleware(browser: Client, airisk: World) -> None:
    assert browser.get("/export/")["Location"] == "/airisk/connect/?next=%2Fexport%2F"
    assert "export your conversations" in browser.get("/airisk/connect/").content.decode()
    assert browser.get("/export/", headers={"Accept": "application/json"}).status_code == 403


@in_views
@pytest.mark.once
def test_view_that_catches_works_when_connected(browser: Client, mia: User, airisk: World) -> None:
    live_token(airisk, mia)
    assert browser.get("/export/").json()["conversations"]
    AIRiskToken.objects.all().delete()
    give_token(mia, ends_in=-60)
    airisk.switches.outage = True
    assert browser.get("/export/").status_code == 503


@in_views
@pytest.mark.once
def test_other_framework_answers_by_answer_for(browser: Client, mia: User, airisk: World) -> None:
    response = browser.get("/in-other-framework/")
    assert (response.status_code, set(response.json())) == (403, {"detail", "connect_url"})
    live_token(airisk, mia)
    with pytest.raises(ValueError, match=r"^$"):
        browser.get("/in-other-framework/")
    AIRiskToken.objects.all().delete()
    give_token(mia, ends_in=-60)
    airisk.switches.outage = True
    response = browser.get("/in-other-framework/")
    assert (response.status_code, response["Retry-After"]) == (503, "30")


# htmx and Turbo


@pytest.fixture
def fragment(settings: Any) -> None:
    """The documentation's template, where the documentation's view looks for it."""
    loader = "django.template.loaders.locmem.Loader", {"site/_conversations.html": snippet("<turbo-frame")}
    [engine] = settings.TEMPLATES
    settings.TEMPLATES = [
        {**engine, "APP_DIRS": False, "OPTIONS": {**engine["OPTIONS"], "loaders": [loader]}},
    ]


@in_views
@pytest.mark.once
@pytest.mark.usefixtures("fragment")
@pytest.mark.parametrize("headers", [{"HX-Request": "true"}, {"Turbo-Frame": "conversations"}], ids=str)
def test_fragment_says_what_there_is_to_do(headers: dict[str, str], browser: Client, mia: User, airisk: World) -> None:
    def shown() -> str:
        response = browser.get("/fragment/", headers=headers)
        assert response.status_code == 200
        return str(response.content.decode())

    assert 'href="/airisk/connect/?next=/dashboard/"' in shown()
    token = give_token(mia, ends_in=-60)
    airisk.switches.outage = True
    assert "AIRisk is down" in shown()
    airisk.switches.outage = False
    token.delete()
    live_token(airisk, mia)
    assert "<li>" in shown()


@pytest.mark.once
def test_htmx_is_told_where_to_connect(browser: Client, airisk: World) -> None:
    headers = {"HX-Request": "true", "HX-Current-URL": "http://testserver/dashboard/"}
    response = browser.get("/needs/", headers=headers)
    assert (response.status_code, response["HX-Redirect"]) == (403, "/airisk/connect/?next=%2Fdashboard%2F")


# Celery


@pytest.mark.once
def test_task_is_retried_after_an_outage(mia: User, airisk: World) -> None:
    task = module("mysite.tasks", snippet("@shared_task")).count_conversations
    token = give_token(mia, ends_in=-60)
    airisk.switches.outage = True
    retries: list[Any] = []

    def recover(**given: Any) -> None:
        retries.append(given["reason"])
        airisk.switches.outage = False
        AIRiskToken.objects.filter(pk=token.pk).update(failed_at=None)

    task_retry.connect(recover)
    try:
        assert task.apply([mia.pk]).get() > 0
    finally:
        task_retry.disconnect(recover)
    assert len(retries) == 1
    AIRiskToken.objects.all().delete()
    assert task.apply([mia.pk]).get() is None
