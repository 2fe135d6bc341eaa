"""The demo's chat, in Chromium and without scripts."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.support.chromium import assert_no_barrier, assert_said, click, needs_chromium
from tests.support.demo import Browser

CHAT = "/chat/"


@pytest.fixture
def connected(visitor: Browser) -> Browser:
    visitor.submit("/airisk/connect/", next=CHAT)
    return visitor


@pytest.fixture
def tab(chromium: Any, demo_site: str, connected: Browser) -> Iterator[Page]:
    """A tab in which the user demo is signed in and connected, on the page of agents."""
    window: Any = {"width": 390, "height": 800}
    with chromium.new_context(base_url=demo_site, viewport=window) as context:
        context.add_cookies([{"name": "sessionid", "value": connected.cookies["sessionid"], "url": demo_site}])
        tab = context.new_page()
        tab.goto(CHAT)
        yield tab


def start(tab: Page, text: str) -> None:
    tab.get_by_label("Policy helper").check()
    tab.get_by_label("Your question").fill(text)
    click(tab, "Start a conversation")


def ask(tab: Page, text: str) -> None:
    tab.get_by_label("Your question").fill(text)
    click(tab, "Ask")


@needs_chromium
def test_answer_appears_with_sources_and_history(tab: Page) -> None:
    assert_no_barrier(tab)
    start(tab, "May I work from abroad?")
    latest = tab.locator("#latest")
    expect(latest).to_contain_text("You asked: May I work from abroad?")
    expect(latest).to_contain_text("policy [policy.pdf]")
    expect(latest).to_contain_text("Sources: policy.pdf")
    expect(tab.get_by_role("heading", level=1)).to_have_text("May I work from abroad?")
    assert_no_barrier(tab)
    click(tab, "Good answer")
    expect(tab.get_by_role("button", name="Good answer")).to_have_attribute("aria-pressed", "true")
    expect(tab.get_by_label("Your question")).to_have_value("")
    tab.get_by_role("link", name="All conversations").click()
    tab.get_by_role("link", name="May I work from abroad?").first.click()
    assert_said(tab, "You asked: May I work from abroad?")


@needs_chromium
def test_file_is_added_before_the_question(tab: Page) -> None:
    start(tab, "First")
    expect(tab.locator("#latest")).to_contain_text("No other finding.")
    tab.get_by_label("Add a file").set_input_files({"name": "plan.txt", "mimeType": "text/plain", "buffer": b"A plan"})
    ask(tab, "Second")
    expect(tab.locator("#latest")).to_contain_text("You asked: Second")
    assert [text.partition("\n")[0] for text in tab.locator("#messages > li").all_inner_texts()][-3:] == [
        "You",
        "You",
        "AIRisk",
    ]
    assert_said(tab, "File: plan.txt")


@needs_chromium
@pytest.mark.parametrize("switches", [{}, {"old_stream": "on"}])
def test_answer_that_breaks_off_is_kept(tab: Page, connected: Browser, switches: dict[str, str]) -> None:
    connected.switch(stream_breaks_off="on", **switches)
    start(tab, "Why?")
    expect(tab.get_by_role("alert")).to_contain_text("AIRisk's answer broke off.")
    expect(tab.locator("#messages")).to_contain_text("The draft was read")
    assert_no_barrier(tab)


@needs_chromium
def test_slow_answer_can_be_stopped(tab: Page, connected: Browser) -> None:
    connected.switch(first_text_after="60")
    start(tab, "How long?")
    assert_said(tab, "Thinking…")
    assert_no_barrier(tab)
    click(tab, "Stop")
    expect(tab.locator("#messages")).not_to_contain_text("Thinking…")
    expect(tab.locator("#problem")).to_be_empty()


@needs_chromium
def test_lost_connection_leads_to_connect(tab: Page, connected: Browser) -> None:
    start(tab, "First")
    expect(tab.locator("#latest")).to_contain_text("No other finding.")
    connected.submit("/airisk/disconnect/")
    ask(tab, "Second")
    tab.wait_for_url("**/airisk/connect/**")


@needs_chromium
def test_question_that_is_not_sent_is_kept(tab: Page, connected: Browser) -> None:
    start(tab, "First")
    expect(tab.locator("#latest")).to_contain_text("No other finding.")
    connected.switch(outage="on")
    ask(tab, "Second")
    expect(tab.get_by_role("alert")).not_to_be_empty()
    expect(tab.get_by_label("Your question")).to_have_value("Second")


def test_chat_works_without_scripts(connected: Browser) -> None:
    page = connected.see(CHAT)
    agent = connected.page.partition('name="agent" value="')[2].partition('"')[0]
    page = connected.submit(CHAT, agent=agent, text="And without scripts?")
    assert "And without scripts?</textarea>" in connected.page
    conversation = connected.address
    page = connected.submit(conversation, text="And without scripts?")
    assert "You asked: And without scripts?" in page
    assert "No other finding." in page
    message = connected.page.rpartition('name="message" value="')[2].partition('"')[0]
    connected.submit(f"{conversation}rate/", message=message, feedback="Dislike")
    assert 'value="Dislike" aria-pressed="true"' in connected.page


def test_chat_tells_what_keeps_it_from_working(connected: Browser) -> None:
    connected.switch(no_agents="on")
    assert "AIRisk has no agent that you may ask." in connected.see(CHAT)
    connected.switch(outage="on")
    assert "AIRisk is not available" in connected.see(CHAT, 503)
    connected.switch()
    assert "AIRisk refused this site's request" in connected.see(f"{CHAT}nothing/", 502)
