"""Connecting in a real browser, with the site and AIRisk on different sites, so that cookies behave as in production.

Needs Debian's ``chromium``. Without it these tests are skipped, except in CI, where that is a failure.
"""

import re
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.cache import cache
from playwright.sync_api import Browser, Page, expect

from airisk_oauth.admin import searching
from airisk_oauth.models import AIRiskIdentity, AIRiskToken
from airisk_oauth.sandbox.world import World
from tests.support.chromium import assert_no_barrier, assert_said, click, disconnect, needs_chromium, sign_in
from tests.support.people import give_token, token_requests

REFUSED: dict[str, Any] = {
    "failure_kind": "refused",
    "failure_count": 1,
    "failure_status": 401,
    "failure_trace_id": "00-676e1bd0c3f04c0fbf2b8cc9a2c55ef1-35ac77b23e0a4b1d-00",
}

pytestmark = [pytest.mark.django_db(transaction=True), needs_chromium, pytest.mark.once]


def test_one_click_connects_and_one_disconnects(page: Page, site: str, mia: User) -> None:
    page.goto("/airisk/")
    assert_said(page, "Not connected")
    click(page, "Connect")
    expect(page).to_have_url(f"{site}/airisk/")
    assert_said(page, "You are connected to AIRisk.")
    assert_said(page, ", as user_42.")
    assert AIRiskToken.objects.get().user == mia
    disconnect(page)
    assert_said(page, "You are disconnected from AIRisk. AIRisk itself forgets the connection at")
    assert not AIRiskToken.objects.exists()


def test_connecting_leads_back_to_the_page(page: Page, site: str) -> None:
    page.goto("/needs/")
    click(page, "Connect")
    expect(page).to_have_url(f"{site}/needs/")


def test_connecting_works_by_keyboard(page: Page, site: str) -> None:
    page.goto("/airisk/")
    for _press in range(10):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "Connect":
            break
    page.keyboard.press("Enter")
    assert_said(page, "You are connected to AIRisk.")


@pytest.mark.parametrize(
    ("switch", "words"),
    [("refuse", "You did not allow the connection."), ("malformed", "AIRisk's answer could not be used.")],
)
def test_failure_is_shown_and_can_be_retried(page: Page, airisk: World, switch: str, words: str) -> None:
    setattr(airisk.switches, switch, True)
    page.goto("/airisk/")
    click(page, "Connect")
    expect(page.get_by_role("alert")).to_contain_text(words)
    assert_said(page, "Not connected")
    setattr(airisk.switches, switch, False)
    click(page, "Connect")
    assert_said(page, "You are connected to AIRisk.")


def test_back_button_leads_back_from_an_outage(page: Page, airisk: World, airisk_url: str) -> None:
    airisk.switches.outage = True
    page.goto("/airisk/")
    click(page, "Connect")
    assert page.url.startswith(airisk_url)
    expect(page.get_by_role("heading")).to_be_visible()
    airisk.switches.outage = False
    # From the page itself: while Chromium changes its process for another site, it may drop Playwright's call.
    page.evaluate("setTimeout(() => history.back(), 0)")
    page.wait_for_url("**/airisk/")
    click(page, "Connect")
    assert_said(page, "You are connected to AIRisk.")


def test_login_page_of_airisk_can_be_confirmed(page: Page, airisk: World, airisk_url: str, site: str) -> None:
    airisk.switches.login_page = True
    page.goto("/airisk/")
    click(page, "Connect")
    assert page.url.startswith(airisk_url)
    page.get_by_role("button", name="Sign in and allow").click()
    expect(page).to_have_url(f"{site}/airisk/")
    assert_said(page, "You are connected to AIRisk.")


def test_signing_out_on_the_way_connects_nobody(page: Page, airisk: World) -> None:
    airisk.switches.login_page = True
    page.goto("/airisk/")
    click(page, "Connect")
    Session.objects.all().delete()
    page.get_by_role("button", name="Sign in and allow").click()
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    assert urlsplit(page.url).path == "/airisk/callback/"
    assert "state=" not in page.content()
    assert not token_requests(airisk)


def test_strict_session_cookie_connects_nobody(
    chromium: Browser, site: str, mia: User, airisk: World, settings: Any
) -> None:
    settings.SESSION_COOKIE_SAMESITE = "Strict"
    airisk.switches.login_page = True
    with chromium.new_context(base_url=site) as context:
        sign_in(context, site, mia, "Strict")
        tab = context.new_page()
        tab.goto("/airisk/")
        click(tab, "Connect")
        tab.get_by_role("button", name="Sign in and allow").click()
        assert_said(tab, "You are not signed in here")
        assert not token_requests(airisk)
        tab.get_by_role("link", name="Go to your AIRisk connection").click()
        assert_said(tab, "Not connected")


def test_forms_work_after_a_rejected_callback(page: Page, settings: Any) -> None:
    """A browser sends the origin of a form, which Django checks, only if the page's referrer policy allows it."""
    form = '<form method="post" action="/airisk/disconnect/">{% csrf_token %}<button>Sign out</button></form>'
    base = f"{{% block content %}}{{% endblock %}}{form}"
    [engine] = settings.TEMPLATES
    own = ("django.template.loaders.locmem.Loader", {"airisk_oauth/base.html": base})
    loaders = [own, "django.template.loaders.app_directories.Loader"]
    settings.TEMPLATES = [{**engine, "APP_DIRS": False, "OPTIONS": {**engine["OPTIONS"], "loaders": loaders}}]
    page.goto("/airisk/callback/?code=a&state=b")
    with page.expect_response("**/airisk/disconnect/") as answered:
        click(page, "Sign out")
    assert answered.value.status == 302


def test_connecting_moves_to_the_right_host(page: Page, site: str, mia: User, airisk: World) -> None:
    other = site.replace("localhost", "127.0.0.1")
    sign_in(page.context, other, mia)
    page.goto(f"{other}/needs/")
    assert_said(page, "AIRisk sends you back to localhost")
    click(page, "Connect")
    expect(page).to_have_url(f"{site}/airisk/connect/?next=%2Fneeds%2F")
    click(page, "Connect")
    expect(page).to_have_url(f"{site}/needs/")


def test_two_tabs_can_be_finished_in_reverse(page: Page, airisk: World) -> None:
    airisk.switches.login_page = True
    second = page.context.new_page()
    for tab in (page, second):
        tab.goto("/airisk/")
        click(tab, "Connect")
    for tab in (second, page):
        tab.get_by_role("button", name="Sign in and allow").click()
        assert_said(tab, ", as user_42.")
    assert len(token_requests(airisk)) == 2


def test_back_and_forward_do_no_harm(page: Page, site: str, airisk: World) -> None:
    page.goto("/airisk/")
    click(page, "Connect")
    assert_said(page, "You are connected to AIRisk.")
    page.go_back()
    page.go_forward()
    page.goto("/airisk/")
    assert_said(page, ", as user_42.")
    assert len(token_requests(airisk)) == 1


def test_double_click_connects_once(page: Page, site: str, airisk: World) -> None:
    airisk.switches.latency = 0.2
    page.goto("/airisk/")
    page.get_by_role("button", name="Connect", exact=True).dblclick()
    assert_said(page, ", as user_42.")
    assert AIRiskToken.objects.count() == 1


def test_admin_actions_ask_for_confirmation(page: Page, airisk: World, mia: User) -> None:
    User.objects.update(is_staff=True, is_superuser=True)
    give_token(mia, ends_in=-60)
    page.goto("/admin/airisk_oauth/airisktoken/")
    page.get_by_role("link", name="1 expired").click()
    for action, question, said in (
        ("Renew now", "Renew 1 token now?", "1 token was renewed."),
        ("Disconnect", "Disconnect 1 token?", "1 token was disconnected."),
    ):
        page.goto("/admin/airisk_oauth/airisktoken/")
        page.locator("input.action-select").check()
        page.locator("select[name=action]").select_option(action)
        page.locator("button[name=index]").click()
        assert_said(page, question)
        click(page, "Yes, I’m sure")  # noqa: RUF001 - as Django writes it
        assert_said(page, said)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")])
def test_pages_have_no_barriers_in_any_window(page: Page, width: int, scheme: Any, mia: User) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=scheme)
    AIRiskIdentity.objects.create(user=mia, deployment="second", userid="user_42")
    give_token(mia, deployment="second", **REFUSED)
    for address in ("/airisk/connect/", "/airisk/callback/?state=unknown&code=x", "/airisk/"):
        page.goto(address)
        assert_no_barrier(page)
    click(page, "Connect")
    expect(page.get_by_role("alert")).to_be_visible()
    assert_no_barrier(page)
    page.get_by_text("Disconnect …").first.click()
    assert_no_barrier(page)
    page.get_by_role("button", name="Disconnect", exact=True).first.click()
    expect(page.get_by_role("alert")).to_be_visible()
    assert_no_barrier(page)


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")])
def test_admin_pages_have_no_barriers_of_ours(page: Page, width: int, scheme: Any, mia: User) -> None:
    djangos_own = (".breadcrumbs", "#changelist-search")
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=scheme)
    User.objects.update(is_staff=True, is_superuser=True)
    give_token(User.objects.create_user("alexandra.of-the-long-name@example.com"), **REFUSED)
    give_token(mia)
    page.goto("/admin/airisk_oauth/airisktoken/")
    # On a phone, the owner and the status can be seen without scrolling.
    for column in page.locator("#result_list tr:first-child :is(.field-owner, .airisk-state)").all():
        box = column.bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= width
    assert_no_barrier(page, *djangos_own)
    page.goto("/admin/airisk_oauth/airisktoken/?status=live")
    assert_no_barrier(page, *djangos_own)
    page.locator("input.action-select").check()
    page.locator("select[name=action]").select_option("Renew now")
    page.locator("button[name=index]").click()
    assert_said(page, "Renew 1 token now?")
    assert_no_barrier(page, *djangos_own)
    page.goto(f"/admin/airisk_oauth/airisktoken/{AIRiskToken.objects.earliest('pk').pk}/change/")
    assert_no_barrier(page, *djangos_own)


def test_lists_of_the_admin_are_not_cut_off(page: Page, mia: User) -> None:
    page.set_viewport_size({"width": 1280, "height": 800})
    User.objects.update(is_staff=True, is_superuser=True)
    userid = "7b1c4d5e-0f3a-4c7e-9a51-5d2f6b8c0e41"
    owner = User.objects.create_user("alexandra.of-the-long-name@example.com")
    AIRiskIdentity.objects.create(user=owner, userid=userid)
    give_token(owner, **{**REFUSED, "userid": userid})
    for name in ("airisktoken", "airiskidentity"):
        page.goto(f"/admin/airisk_oauth/{name}/")
        assert page.locator("#nav-sidebar").is_visible()
        assert page.locator("#changelist .results").evaluate("table => table.scrollWidth <= table.clientWidth")


def test_long_list_gets_its_numbers_afterwards(page: Page, mia: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "LARGE", 0)
    cache.clear()
    User.objects.update(is_staff=True, is_superuser=True)
    give_token(mia)
    with page.expect_request(lambda request: request.headers.get("x-airisk-numbers") == "now"):
        page.goto("/admin/airisk_oauth/airisktoken/")
    expect(page.locator(".airisk-states")).to_have_text("1 valid")
    page.get_by_role("link", name="1 valid").click()
    expect(page).to_have_url(re.compile(r"\?status=live$"))
    assert_said(page, "1 AIRisk token")
    cache.clear()


def test_connecting_needs_no_script(chromium: Browser, site: str, mia: User) -> None:
    with chromium.new_context(base_url=site, java_script_enabled=False) as context:
        sign_in(context, site, mia)
        tab = context.new_page()
        tab.goto("/airisk/")
        click(tab, "Connect")
        assert re.search("You are connected", tab.content())
