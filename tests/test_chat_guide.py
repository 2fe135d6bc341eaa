"""The snippets of docs/chat.md, on a site and in a browser."""

import io
import sys
import types
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.test import Client
from django.urls import include, path
from playwright.sync_api import Browser, Page, expect

from airisk_oauth.sandbox.world import World
from tests.support import pages
from tests.support.chromium import assert_no_barrier, click, needs_chromium
from tests.support.database import committing
from tests.support.people import live_token

snippet = partial(pages.snippet, "docs/chat.md")

pytestmark = [pytest.mark.django_db, pytest.mark.once]


@pytest.fixture
def guide(settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A site made of the page's views, addresses, template and script."""
    views = pages.module("guide_views", snippet("def chat(request)"))
    urlconf: Any = types.ModuleType("guide_urls")
    urlconf.urlpatterns = [path("", include("tests.urls"))]
    exec(snippet("urlpatterns +="), {"path": path, "views": views, "urlpatterns": urlconf.urlpatterns})  # noqa: S102
    monkeypatch.setitem(sys.modules, "guide_urls", urlconf)
    settings.ROOT_URLCONF = "guide_urls"
    (tmp_path / "static").mkdir()
    (tmp_path / "static" / "chat.js").write_text(snippet("eventsOf"), encoding="utf-8")
    form = f'<!DOCTYPE html><html lang="en"><title>Chat</title><main><h1>Chat</h1>{snippet("{{ agent.name }}")}</main>'
    (tmp_path / "chat.html").write_text(form, encoding="utf-8")
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "DIRS": [tmp_path]}]
    settings.STATICFILES_DIRS = [tmp_path / "static"]


@pytest.fixture
def page(chromium: Browser, live_server: Any, mia: User) -> Iterator[Page]:
    client = Client()
    client.force_login(mia)
    cookie = {"name": "sessionid", "value": client.cookies["sessionid"].value, "url": live_server.url}
    with chromium.new_context(base_url=live_server.url) as context:
        context.add_cookies([cookie])  # type: ignore[list-item]
        yield context.new_page()


def ask(page: Page, text: str) -> None:
    page.get_by_label("Ask Contract reader").fill(text)
    click(page, "Ask")


@committing
@needs_chromium
@pytest.mark.parametrize("is_old", [False, True])
def test_page_of_the_guide_shows_the_answer(airisk: World, guide: None, page: Page, mia: User, is_old: bool) -> None:
    airisk.switches.old_stream = is_old
    live_token(airisk, mia)
    page.goto("/chat/")
    assert_no_barrier(page)
    ask(page, "Warum ü?")
    answer = page.locator("#answer")
    expect(answer).to_contain_text("You asked: Warum ü?")
    expect(answer).to_contain_text("No other finding.")
    airisk.switches.stream_breaks_off = True
    ask(page, "Again?")
    expect(answer).to_contain_text("You asked: Again?")
    expect(answer).to_contain_text("(AIRisk's answer broke off.)")
    expect(answer).not_to_contain_text("Warum")


@committing
@needs_chromium
def test_page_of_the_guide_leads_to_connect(
    airisk: World, guide: None, page: Page, mia: User, live_server: Any
) -> None:
    token = live_token(airisk, mia)
    page.goto("/chat/")
    token.delete()
    ask(page, "Why?")
    expect(page).to_have_url(f"{live_server.url}/airisk/connect/")


def test_snippets_for_scripts_talk_to_agents(airisk: World, mia: User, capsys: pytest.CaptureFixture[str]) -> None:
    live_token(airisk, mia)
    given: dict[str, Any] = {}
    exec(snippet("def summarize"), given)  # noqa: S102 - the page's own
    exec(snippet("async def ask_about_latest"), given)  # noqa: S102
    file = io.BytesIO(b"content")
    file.name = "plan.pdf"
    text, status = given["summarize"](mia, file)
    assert text.startswith("You asked: Please summarize the file.")
    assert (capsys.readouterr().out, status) == (text, "completed")
    assert async_to_sync(given["ask_about_latest"])(mia, "Why?").startswith("You asked: Why?")
