"""The demo does what the README promises, when it is started as by `make demo` and used like by a person."""

import html
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from demo_project.conversations import Conversation, read_conversations
from tests.support.chromium import assert_no_barrier, assert_said, click, needs_chromium
from tests.support.demo import Browser, end, manage, run
from tests.support.texts import Shown


def test_two_clicks_lead_to_the_conversations(visitor: Browser) -> None:
    home = visitor.see("/")
    assert "Not connected" in home
    assert "user_42" in home
    page = visitor.submit("/airisk/connect/", next="/conversations/")
    assert visitor.address == "/conversations/"
    assert "You are connected to AIRisk." in page
    assert re.search(r"Fetched from AIRisk just now, on your behalf\. \w.+ ago", page)


def test_switches_do_what_the_home_page_says(visitor: Browser) -> None:
    visitor.submit("/airisk/connect/", next="/")
    visitor.switch("end_all_tokens")
    assert "Fetched from AIRisk just now" in visitor.see("/conversations/")
    assert re.search(r"Recent events Conversations fetched .+? Token renewed", visitor.see("/"))
    visitor.switch(outage="on")
    assert "AIRisk is down. Fix AIRisk" in visitor.see("/conversations/", status=503)
    visitor.switch()
    assert "Fetched from AIRisk just now" in visitor.see("/conversations/")


@pytest.mark.parametrize(
    ("name", "status", "address", "words", "state"),
    [
        ("expire", 200, "/conversations/", "Fetched from AIRisk just now", ""),
        ("down", 503, "/conversations/", "AIRisk is not available", "AIRisk is down."),
        ("login", 200, "/airisk/connect/?next=%2Fconversations%2F", "Please reconnect", "AIRisk shows a login page"),
        ("short", 200, "/conversations/", "Fetched from AIRisk just now", "AIRisk's tokens expire after a minute."),
    ],
)
def test_one_click_breaks_airisk_and_one_fixes_it(
    name: str, status: int, address: str, words: str, state: str, visitor: Browser
) -> None:
    visitor.submit("/airisk/connect/", next="/")
    assert words in visitor.submit(f"/trials/{name}/", status)
    assert visitor.address == address
    home = visitor.see("/")
    assert (state or "Conversations fetched") in home
    assert bool(state) == ("Fix AIRisk" in home)
    home = visitor.submit("/trials/fix/")
    assert "Fix AIRisk" not in home
    visitor.submit("/trials/nothing/", 404)


def test_fix_restores_the_lost_connection(visitor: Browser) -> None:
    visitor.submit("/airisk/connect/", next="/")
    visitor.submit("/trials/login/")
    assert "AIRisk shows a login page. Fix AIRisk Your connection to AIRisk was lost." in visitor.see("/")
    assert "Reconnect first: these buttons change" in visitor.see("/")
    home = visitor.submit("/trials/fix/")
    assert "was lost" not in home
    assert "Please reconnect" not in home
    assert "Fetched from AIRisk just now" in visitor.see("/conversations/")


def test_trials_wait_for_the_first_connect(visitor: Browser) -> None:
    assert "Connect first: these buttons change" in visitor.see("/")
    assert visitor.page.count(" disabled>") == 5
    visitor.submit("/airisk/connect/", next="/")
    assert "Connect first" not in visitor.see("/")
    assert " disabled>" not in visitor.page


def test_sign_in_page_of_the_sandbox_can_refuse(visitor: Browser) -> None:
    visitor.switch(login_page="on")
    visitor.see("/")
    assert "Do not allow" in visitor.submit("/airisk/connect/", next="/")
    names = re.findall(r'name="(client_id|redirect_uri|state|userid)" value="([^"]*)"', visitor.page)
    fields: Any = {name: html.unescape(value) for name, value in names}
    page = visitor.submit("/sandbox/api/oauth2/Consent", answer="refuse", **fields)
    assert "You did not allow the connection" in page


def test_short_lived_token_has_a_countdown(visitor: Browser) -> None:
    visitor.submit("/airisk/connect/", next="/")
    visitor.submit("/trials/short/")
    assert re.search(r"The token expires in (5\d|60) seconds", visitor.see("/"))


def test_switches_set_by_hand_are_shown(visitor: Browser) -> None:
    visitor.switch(latency="0.1")
    assert "AIRisk behaves as set by the sandbox switches. Fix AIRisk" in visitor.see("/")
    visitor.switch(latency="3")
    assert "AIRisk is slow. Fix AIRisk" in visitor.see("/")


@needs_chromium
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")])
@pytest.mark.usefixtures("visitor")
def test_pages_have_no_barriers(chromium: Any, demo_site: str, width: int, scheme: Any) -> None:
    window: Any = {"width": width, "height": 800}
    with chromium.new_context(base_url=demo_site, viewport=window, color_scheme=scheme) as context:
        tab = context.new_page()
        tab.goto("/")
        assert_no_barrier(tab)
        tab.goto("/accounts/login/")
        assert_no_barrier(tab)
        for label in ("Username", "Password"):
            tab.get_by_label(label).fill("demo")
        tab.locator("main").get_by_role("button", name="Sign in").click()
        click(tab, "Connect to AIRisk")
        assert_said(tab, "Fetched from AIRisk just now")
        assert_no_barrier(tab)
        tab.goto("/")
        assert_no_barrier(tab)
        click(tab, "Take AIRisk down")
        assert_said(tab, "AIRisk is not available")
        assert_no_barrier(tab)
        click(tab, "Fix AIRisk")
        tab.goto("/sandbox/control/")
        assert_no_barrier(tab)
        tab.goto("/")
        click(tab, "Disconnect")
        assert_said(tab, "You are disconnected")
        assert_no_barrier(tab)


def test_visitor_is_shown_how_to_begin(demo_site: str) -> None:
    with Browser(demo_site) as visitor:
        welcome = visitor.see("/")
        assert "demo demo" in welcome
        assert "admin admin" in welcome
        visitor.see("/conversations/")
        assert visitor.address == "/accounts/login/?next=/conversations/"
        visitor.see("/static/demo/demo.css")


def test_admin_is_staff_with_another_userid(demo_site: str) -> None:
    with Browser(demo_site) as visitor:
        assert "user_1" in visitor.sign_in("admin")
        assert "user_42" in visitor.see("/admin/airisk_oauth/airiskidentity/")


def test_localhost_is_redirected_to_the_site(demo_site: str) -> None:
    host = demo_site.removeprefix("http://").replace("127.0.0.1", "localhost")
    answer = requests.get(
        f"{demo_site}/accounts/login/?next=/", headers={"Host": host}, allow_redirects=False, timeout=10
    )
    assert answer.headers["Location"] == f"{demo_site}/accounts/login/?next=/"


@pytest.mark.parametrize(
    ("preferred", "of_the_package", "of_the_demo"),
    [
        ("de-CH", "Ihre AIRisk-Verbindung", "AIRisk-Demo"),
        ("es-MX", "Su conexión con AIRisk", "Demo AIRisk"),
        ("fr", "Votre connexion à AIRisk", "Démo AIRisk"),
        ("ja", "AIRisk との接続", "AIRisk デモ"),
        ("zh-CN", "您的 AIRisk 连接", "AIRisk 演示"),
        # Klingon: a language that nobody will add.
        ("tlh", "Your AIRisk connection", "AIRisk demo"),
    ],
)
def test_pages_are_in_the_browsers_language(
    preferred: str, of_the_package: str, of_the_demo: str, visitor: Browser
) -> None:
    page = visitor.get(f"{visitor.site}/airisk/", headers={"Accept-Language": preferred}, timeout=10).text
    assert f"<h1>{of_the_package}</h1>" in page
    assert f">{of_the_demo}</a>" in page


def in_many_a_state(visitor: Browser) -> Iterator[set[str]]:
    """Yield the texts on the demo's pages in many states, except AIRisk's own, and restore the initial state."""

    def shown() -> set[str]:
        return Shown(re.sub(r"<article.*?</article>", "", visitor.page, flags=re.DOTALL)).found - {"demo"}

    visitor.switch()
    visitor.submit("/airisk/disconnect/")
    visitor.see("/")
    yield shown()
    visitor.submit("/airisk/connect/", next="/conversations/")
    yield shown()
    for name, status in (("down", 503), ("short", 200), ("login", 200)):
        visitor.submit(f"/trials/{name}/", status)
        yield shown()
        visitor.see("/")
        yield shown()
    visitor.switch()
    visitor.submit("/airisk/connect/", next="/")
    visitor.switch(malformed="on")
    visitor.switch("end_all_tokens")
    visitor.see("/conversations/", 502)
    yield shown()
    visitor.see("/")
    yield shown()
    visitor.switch(latency="3")
    with Browser(visitor.site) as nobody:
        nobody.headers.update(visitor.headers)
        for path in ("/", "/accounts/login/"):
            nobody.see(path)
            yield Shown(nobody.page).found
    visitor.switch()


def test_japanese_pages_have_no_english_left(visitor: Browser) -> None:
    """Japanese has no words that look like English; for all languages, another test checks the catalogues."""
    english = list(in_many_a_state(visitor))
    visitor.headers["Accept-Language"] = "ja"
    try:
        japanese = list(in_many_a_state(visitor))
    finally:
        del visitor.headers["Accept-Language"]
    for before, after in zip(english, japanese, strict=True):
        assert len(before) >= 8
        assert before & after == set()


def test_demo_passes_its_own_tests(tmp_path: Path) -> None:
    variables = {
        "SECRET_KEY": "a secret of one's own",
        "DATABASE_URL": f"sqlite:///{tmp_path}/demo.sqlite3",
        "AIRISK_BASE_URL": "https://demo.aicrisk.com",
        "AIRISK_CLIENT_ID": "client-1",
        "AIRISK_CLIENT_SECRET": "secret-1",
        "AIRISK_REDIRECT_URI": "https://app.example.com/airisk/callback/",
    }
    command = ["-m", "pytest", "-p", "no:cacheprovider", "--ds=demo_project.settings", "demo_project/tests.py"]
    processes = [run(*command, **variables), manage("check", **variables)]
    for status, output in map(end, processes):
        assert status == 0, output
    assert "no issues" in output


def test_public_secrets_are_for_development_only() -> None:
    processes = [manage("check"), manage("seed_demo", SECRET_KEY="a secret of one's own")]
    results = [end(process) for process in processes]
    for (status, output), reason in zip(results, ("Set SECRET_KEY", "DEBUG=true only"), strict=True):
        assert status != 0
        assert reason in output


@pytest.mark.parametrize(
    "answer",
    [
        [{"title": "Plan", "updated": "2025-03-31T13:12:17Z", "model": "m", "lastMessage": "Yes.", "status": "Open"}],
        {
            "success": True,
            "data": {
                "conversations": [
                    {
                        "Name": "Plan",
                        "UpdatedAt": "2025-03-31T15:12:17.0000000+02:00",
                        "Model": {"Id": 7, "DisplayName": "m"},
                        "last_message": {"role": "assistant", "content": "Yes."},
                        "State": "Open",
                    }
                ]
            },
        },
    ],
)
def test_conversations_are_found_by_any_names(answer: object) -> None:
    updated = datetime(2025, 3, 31, 13, 12, 17, tzinfo=UTC)
    assert read_conversations(answer) == [Conversation("Plan", "m", updated, "Yes.", "Open")]


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00", "0001-01-01T00:00:00+14:00", "2025-02-30T00:00:00Z", "", 7])
def test_invalid_time_is_left_out(moment: object) -> None:
    assert read_conversations([{"title": "Plan", "updated": moment}]) == [Conversation("Plan", "", None, "", "")]


@pytest.mark.parametrize("answer", [None, 7, "text", {}, {"a": [], "b": []}, ["text"], [{"colour": "red"}], [[]]])
def test_unknown_answer_is_not_guessed_at(answer: object) -> None:
    assert read_conversations(answer) is None
