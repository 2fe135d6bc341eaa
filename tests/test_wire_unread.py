"""Response bodies that are discarded: the connection is used again, and a huge or slow body does no harm."""

import gzip
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import requests
from django.contrib.auth.models import User

from airisk_oauth import AIRiskAuth, AIRiskSession
from tests.support.people import give_token
from tests.support.scripted import Ask, ScriptedAIRisk, ask_blocking, both, head, plain
from tests.support.wire import (
    dripping,
    flooding,
    saying,
)

pytestmark = [pytest.mark.django_db, pytest.mark.once, pytest.mark.usefixtures("nothing_in_the_environment")]

CHUNKED = "Transfer-Encoding: chunked"
ENDLESS = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
BOMB = gzip.compress(bytes(50_000_000))


@contextmanager
def little_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()


UNREAD = {
    "short": lambda status, *more: saying(plain(b"x" * 1000, status, *more)),
    "endless": lambda status, *more: flooding(head(status, CHUNKED, *more), ENDLESS),
    "bomb": lambda status, *more: saying(plain(BOMB, status, "Content-Encoding: gzip", *more)),
    "drip": lambda status, *more: dripping(head(status, "Content-Length: 9999", *more), b"x"),
}


@both
@pytest.mark.parametrize("body", UNREAD)
def test_body_of_a_redirect_is_discarded(scripted: ScriptedAIRisk, mia: User, ask: Ask, body: str) -> None:
    give_token(mia)
    scripted.scripts["/api/x"] = UNREAD[body]("302 Found", "Location: /api/y")
    scripted.scripts["/api/y"] = UNREAD[body]("302 Found", "Location: /api/z")
    with little_memory():
        answer = ask(mia, "GET", "/api/x", follow=True)
    assert (answer.status_code, answer.content) == (200, b"[]")
    assert scripted.paths() == ["/api/x", "/api/y", "/api/z"]
    assert [each.content for each in answer.history] == [b"", b""]


@both
@pytest.mark.parametrize("body", UNREAD)
def test_body_of_a_refusal_is_discarded(scripted: ScriptedAIRisk, mia: User, ask: Ask, body: str) -> None:
    give_token(mia, access_token="refused")
    scripted.refused = UNREAD[body]("401 Unauthorized")
    with little_memory():
        assert ask(mia, "GET", "/api/x").status_code == 200


def test_unfollowed_redirect_keeps_its_body(scripted: ScriptedAIRisk, mia: User) -> None:
    give_token(mia)
    scripted.scripts["/api/x"] = saying(plain(b"moved", "302 Found", "Location: /api/y"))
    with AIRiskSession.for_user(mia) as session, session.get("/api/x", stream=True, allow_redirects=False) as answer:
        assert answer.next is not None
        assert answer.next.url == f"{scripted.server.url}/api/y"
        assert answer.raw.read() == b"moved"


@both
def test_redirect_to_invalid_utf_8_is_returned(scripted: ScriptedAIRisk, mia: User, ask: Ask) -> None:
    give_token(mia)
    scripted.scripts["/api/x"] = saying(plain(b"moved", "302 Found", "Location: /api/\xff\xfe"))
    assert ask(mia, "GET", "/api/x", follow=ask is ask_blocking).status_code == 302


def test_own_session_closes_unknown_connections(scripted: ScriptedAIRisk, mia: User) -> None:
    give_token(mia, access_token="refused")
    with requests.Session() as session:
        assert session.get(f"{scripted.server.url}/api/x", auth=AIRiskAuth.for_user(mia), timeout=5).status_code == 200
