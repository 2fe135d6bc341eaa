"""Answers for browsers through real servers: each piece at once, and nobody works for a browser that has left."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from django.contrib.auth.models import User

from airisk_oauth.models import AIRiskToken
from tests.support.chats import CHUNKED, Watched, chunk, new_stream
from tests.support.people import give_token
from tests.support.processes import environment_of
from tests.support.servers import SERVERS, Listener, events_in, serving
from tests.support.wire import Server

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.once]

#: Seconds that nothing here takes, on a machine with much to do.
SOON = 10
ONE = chunk(new_stream("One. ", end=""))
REST = chunk(new_stream("Twö.")) + chunk(b"")


class Site:
    """The site behind a server, and the AIRisk that it calls."""

    def __init__(self, port: int, airisk: Server, user: User) -> None:
        self.port, self.airisk, self.user = port, airisk, user
        self.browsers: list[Listener] = []

    def ask(self, view: str, script: Watched, query: str = "") -> Listener:
        self.airisk.script = script
        self.browsers.append(Listener(self.port, f"/{view}/?text=Why{query}", self.user))
        return self.browsers[-1]


@pytest.fixture(scope="module")
def servers(django_db_setup: None) -> Iterator[Callable[[str], tuple[int, Server]]]:
    """Start each kind of server once, with an AIRisk of its own."""
    started: dict[str, tuple[int, Server]] = {}
    with ExitStack() as stack:

        def start(name: str) -> tuple[int, Server]:
            if name not in started:
                airisk = Server(Watched(b""))
                stack.callback(airisk.stop)
                port = stack.enter_context(serving(name, environment_of(airisk.url)))
                started[name] = port, airisk
            return started[name]

        yield start


@pytest.fixture(params=SERVERS)
def site(request: pytest.FixtureRequest, servers: Callable[[str], tuple[int, Server]], mia: User) -> Iterator[Site]:
    give_token(mia)
    AIRiskToken.objects.update(origin="")
    site = Site(*servers(request.param), mia)
    yield site
    for browser in site.browsers:
        browser.leave()


#: Under each server there are views of both kinds.
in_both_views = pytest.mark.parametrize("view", ["ask", "ask-async"])
of_each_wait = pytest.mark.parametrize("head", [b"", CHUNKED, CHUNKED + ONE], ids=["headers", "text", "more text"])


@in_both_views
def test_every_piece_is_sent_as_it_comes(site: Site, view: str) -> None:
    script = Watched(CHUNKED + ONE, REST)
    browser = site.ask(view, script)
    browser.listen_until(b'{"text": "One. "}\n\n')
    assert b"Tw" not in browser.raw
    script.go_on.set()
    events = events_in(browser.listen_to_the_end())
    assert events == [
        ("text", '{"text": "One. "}'),
        ("text", '{"text": "Tw\\u00f6."}'),
        ("done", '{"status": "completed"}'),
    ]
    assert browser.headers["Content-Type"] == "text/event-stream"
    assert browser.headers["Cache-Control"] == "no-store"
    assert browser.headers["X-Accel-Buffering"] == "no"
    assert browser.headers["Content-Encoding"] == "identity"
    assert browser.headers["Content-Length"] is None
    assert browser.headers["ETag"] is None


@in_both_views
@of_each_wait
def test_comments_are_sent_while_the_agent_thinks(site: Site, view: str, head: bytes) -> None:
    script = Watched(head, (CHUNKED + ONE + REST).removeprefix(head))
    browser = site.ask(view, script, "&keep_alive=0.05")
    if head.endswith(ONE):
        browser.listen_until(b"One.")
    browser.raw = b""
    browser.listen_until(b":\n\n" * 4)
    script.go_on.set()
    assert events_in(browser.listen_to_the_end())[-1][0] == "done"


@in_both_views
@of_each_wait
def test_browser_that_leaves_closes_the_call(site: Site, view: str, head: bytes) -> None:
    script = Watched(head)
    browser = site.ask(view, script)
    assert script.asked.wait(SOON)
    browser.listen_until(b"One." if head.endswith(ONE) else b":\n\n")
    left = browser.leave()
    assert script.left.wait(SOON)
    assert script.left_at - left < SOON / 2
