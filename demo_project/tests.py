"""The demo's own tests, written like those of any site, with the package's fixture ``airisk``."""

from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import Client
from django.utils.translation import to_language

from airisk_oauth.models import AIRiskIdentity
from airisk_oauth.testing import FakeAIRisk

CONVERSATIONS = "/api/GetConversations"


@pytest.fixture
def demo(client: Client, db: None) -> User:
    """The user demo, signed in and not connected."""
    user = User.objects.create_user("demo")
    AIRiskIdentity.objects.create(user=user, userid="user_42")
    client.force_login(user)
    return user


def test_home_page_shows_the_token_lifetime(airisk: FakeAIRisk, client: Client, demo: User) -> None:
    assert "Not connected" in client.get("/").text
    assert airisk.connect_through(client, next="/conversations/")["Location"] == "/conversations/"
    home = client.get("/")
    assert home.context["is_connected"]
    assert home.context["left"] in ("1\xa0hour", "59\xa0minutes")
    assert "The first call in its last 5\xa0minutes renews it" in home.text
    assert [event.kind for event in home.context["events"]] == ["connected"]
    client.post("/airisk/disconnect/")
    assert "Disconnected, token forgotten" in client.get("/").text


def test_expired_token_is_renewed_unnoticed(airisk: FakeAIRisk, client: Client, demo: User) -> None:
    airisk.connect(demo)
    airisk.expire(demo)
    airisk.answer("GET", CONVERSATIONS, json=[{"title": "A plan"}])
    assert "A plan" in client.get("/conversations/").text
    assert [event.kind for event in client.get("/").context["events"]] == ["fetched", "renewed"]


@pytest.mark.parametrize("unreachable", [True, False])
def test_outage_shows_a_page_and_keeps_the_user(
    airisk: FakeAIRisk, client: Client, demo: User, unreachable: bool
) -> None:
    airisk.connect(demo)
    airisk.go_down(unreachable=unreachable)
    page = client.get("/conversations/")
    assert page.status_code == 503
    for words in ("AIRisk is not available at the moment", "Try again", "<b>demo</b>"):
        assert words in page.text
    assert client.get("/").context["is_connected"]


def test_failed_renewal_shows_reason_and_remedy(airisk: FakeAIRisk, client: Client, demo: User) -> None:
    airisk.connect(demo)
    airisk.expire(demo)
    airisk.show_page()
    assert client.get("/conversations/")["Location"] == "/airisk/connect/?next=%2Fconversations%2F"
    home = client.get("/").text
    assert "Please reconnect" in home
    assert "Token not renewed: AIRisk requires a sign-in" in home
    assert "Your connection to AIRisk was lost." in home
    assert "was lost" not in client.get("/airisk/").text


def test_refusal_shows_its_reason_to_staff_only(airisk: FakeAIRisk, client: Client, demo: User) -> None:
    airisk.refuse()
    page = client.get(airisk.connect_through(client)["Location"]).text
    assert "You did not allow the connection" in page
    assert "access_denied" not in page
    User.objects.update(is_staff=True)
    assert "access_denied" in client.get(airisk.connect_through(client)["Location"]).text


@pytest.mark.parametrize("path", ["/airisk/", "/airisk/connect/"])
def test_package_pages_look_like_the_site(client: Client, demo: User, path: str) -> None:
    assert client.get(path).text.count(">AIRisk demo</a>") == 1


def test_sandbox_is_hidden_if_not_installed(client: Client, demo: User, settings: Any) -> None:
    settings.DEBUG = True
    assert "sandbox" not in client.get("/").text.lower()
    assert client.get("/sandbox/control/").status_code == 404


def test_every_translation_can_be_chosen(settings: Any) -> None:
    folders = (Path(__file__).parent / "locale").iterdir()
    assert {"en", *(to_language(folder.name) for folder in folders)} == {code for code, _name in settings.LANGUAGES}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"[]", "You have no conversations on AIRisk yet."),
        (b'{"items": [{"Name": "A plan <b>", "State": null}]}', "A plan &lt;b&gt;"),
        (b'{"conversationCount": 3}', "{&quot;conversationCount&quot;: 3}"),
        (b'["\\ud800"]', "in a form that this page does not recognize"),
        (b'[{"title": "half a pair: \\ud800"}]', "half a pair: ?"),
    ],
)
def test_any_answer_of_airisk_is_shown(
    airisk: FakeAIRisk, client: Client, demo: User, answer: bytes, words: str
) -> None:
    airisk.connect(demo)
    airisk.answer("GET", CONVERSATIONS, HttpResponse(answer))
    assert words in client.get("/conversations/").text


@pytest.mark.parametrize("answer", [b"<!DOCTYPE html>", b"[" * 100_000, b"\xff\xfe", b""])
def test_answer_that_is_not_json_is_reported(airisk: FakeAIRisk, client: Client, demo: User, answer: bytes) -> None:
    airisk.connect(demo)
    airisk.answer("GET", CONVERSATIONS, HttpResponse(answer))
    page = client.get("/conversations/")
    assert page.status_code == 502
    assert "answer cannot be read" in page.text


@pytest.mark.parametrize(
    ("status", "shown", "words"),
    [(403, 502, "AIRisk answered with status 403"), (429, 503, "not available"), (500, 503, "not available")],
)
def test_other_statuses_show_a_page(
    airisk: FakeAIRisk, client: Client, demo: User, status: int, shown: int, words: str
) -> None:
    airisk.connect(demo)
    airisk.answer("GET", CONVERSATIONS, status=status)
    page = client.get("/conversations/")
    assert page.status_code == shown
    assert words in page.text
