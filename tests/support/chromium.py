"""Chromium, driven by Playwright. Tests are skipped if it is not installed, except in CI."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.contrib.auth.models import User
from django.test import Client
from playwright.sync_api import Browser, Page, expect, sync_playwright

from airisk_oauth.sandbox.world import World
from tests.support.options import set_option

CHROMIUM = Path("/usr/bin/chromium")

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

needs_chromium = pytest.mark.skipif(not CHROMIUM.exists() and "CI" not in os.environ, reason="there is no Chromium")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright, pytest.MonkeyPatch.context() as patch:
        # Playwright runs an event loop in this thread, which Django would take for asynchronous code.
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        # A busy machine must not make a test fail.
        expect.set_options(timeout=30_000)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def site(airisk: World, live_server: Any, settings: Any) -> str:
    """The site's address: by another name than AIRisk's, which makes it another site to a browser."""
    address = live_server.url.replace("127.0.0.1", "localhost")
    set_option(settings, REDIRECT_URI=f"{address}/airisk/callback/")
    return str(address)


@pytest.fixture
def page(chromium: Browser, site: str, mia: User) -> Iterator[Page]:
    """A tab of the browser in which Mia is signed in."""
    with chromium.new_context(base_url=site) as context:
        sign_in(context, site, mia)
        tab = context.new_page()
        yield tab


def sign_in(context: Any, site: str, user: User, same_site: str = "Lax") -> None:
    client = Client()
    client.force_login(user)
    value = client.cookies["sessionid"].value
    context.add_cookies([{"name": "sessionid", "value": value, "url": site, "sameSite": same_site}])


def click(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def disconnect(page: Page) -> None:
    """Click Disconnect, and answer the question with Disconnect."""
    page.get_by_text("Disconnect …").click()
    click(page, "Disconnect")


def assert_said(page: Page, text: str) -> None:
    expect(page.locator("body")).to_contain_text(text)


def assert_no_barrier(page: Page, *apart_from: str) -> None:
    """Check a page for accessibility problems, and that it needs no horizontal scrolling."""
    found = Axe().run(page, {"exclude": [[selector] for selector in apart_from]})
    assert found.violations_count == 0, f"{page.url}: {found.generate_report()}"
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), page.url
