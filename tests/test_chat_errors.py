"""The errors of chat calls on both sides: refusals, unknown formats, limits of size and time."""

import gzip
import json
import time
import zlib
from collections.abc import Callable

import pytest
from django.contrib.auth.models import User

from airisk_oauth.exceptions import AIRiskInvalidResponse, AIRiskRefused, AIRiskUnavailable, ConnectionRequired
from airisk_oauth.sandbox.world import World
from tests.support.chat import QUESTION
from tests.support.chats import (
    CHUNKED,
    SOON,
    ChatAt,
    Side,
    answering,
    calls_of,
    chunk,
    in_turn,
    raise_error,
    side_of,
)
from tests.support.people import api_statuses, stored, token_requests
from tests.support.tracebacks import shown_variables
from tests.support.wire import dripping, flooding, saying, silent

pytestmark = pytest.mark.django_db


def test_refusal_has_its_reason_and_trace_id(chat_at: ChatAt) -> None:
    content = {"title": "Forbidden", "status": 403, "traceId": "00-676e-01-00"}
    scripted = chat_at(answering(content, "Content-Type: application/problem+json", status="403 Forbidden"))
    for call in calls_of(scripted.side):
        with pytest.raises(AIRiskRefused) as raised:
            call()
        error = raised.value
        assert (error.status, error.reason, error.trace_id) == (403, "Forbidden", "00-676e-01-00")


@pytest.mark.parametrize("body", [b"Not your token: token-canary", b"x" * 100_000, b"\xff\xfe", b""])
def test_refusal_repeats_nothing_secret(chat_at: ChatAt, body: bytes) -> None:
    scripted = chat_at(answering(body, "Content-Type: text/plain", status="400 Bad Request"))
    for call in calls_of(scripted.side):
        with pytest.raises(AIRiskRefused) as raised:
            call()
        assert (raised.value.status, raised.value.reason) == (400, "")
        assert "canary" not in shown_variables(raised.value)


def test_refusal_that_breaks_off_is_still_one(chat_at: ChatAt) -> None:
    for head in ("Content-Length: 99", "Content-Length: 9\r\nContent-Encoding: gzip"):
        scripted = chat_at(saying(f"HTTP/1.1 404 Not Found\r\n{head}\r\n\r\n{{}}".encode()))
        error = scripted.error_of(lambda side: side.conversation("c"))
        assert isinstance(error, AIRiskRefused)
        assert error.status == 404


@pytest.mark.parametrize("status", ["429 Too Many Requests", "500 Internal Server Error", "503 Service Unavailable"])
def test_outage_is_unavailable_for_a_while(chat_at: ChatAt, status: str) -> None:
    scripted = chat_at(answering(b"<h1>Down</h1>", "Retry-After: 7", status=status))
    for call in calls_of(scripted.side):
        with pytest.raises(AIRiskUnavailable, match=status[:3]) as raised:
            call()
        assert raised.value.retry_after == 7


@pytest.mark.parametrize("status", ["302 Found", "304 Not Modified"])
def test_redirect_is_an_invalid_response(chat_at: ChatAt, status: str) -> None:
    scripted = chat_at(answering(b"", "Location: /api/Chat/ListAgents", status=status))
    for call in calls_of(scripted.side):
        with pytest.raises(AIRiskInvalidResponse, match=status[:3]):
            call()
    assert len(scripted.server.seen) == len(calls_of(scripted.side))


def test_without_a_connection_one_is_required(side_kind: type[Side], airisk: World, mia: User) -> None:
    with side_of(side_kind, mia) as side:
        for call in calls_of(side):
            with pytest.raises(ConnectionRequired) as raised:
                call()
            assert raised.value.connect_url == "/airisk/connect/"
    assert api_statuses(airisk) == []


def test_question_is_repeated_after_a_401(chat: Side, airisk: World, mia: User) -> None:
    airisk.end_all_tokens()
    answer = chat.take(to=QUESTION["conversationID"])
    assert answer.status == "completed"
    assert api_statuses(airisk) == [401, 200]
    assert len(token_requests(airisk)) == 1
    assert stored(mia).access_token != "stored-token"


@pytest.mark.parametrize(
    ("call", "content"),
    [
        (lambda side: side.agents(), {}),
        (lambda side: side.agents(), [5]),
        (lambda side: side.agents(), [{"id": 5, "name": "canary"}]),
        (lambda side: side.agents(), [{"id": "canary", "name": None}]),
        (lambda side: side.agents(), [{"id": "canary"}]),
        (lambda side: side.agents(), [{"id": "canary", "name": "A", "botSuggestion": "x"}]),
        (lambda side: side.agents(), [{"id": "canary", "name": "A", "botSuggestion": ["x"]}]),
        (lambda side: side.agents(), b'["canary"'),
        (lambda side: side.agents(), b""),
        (lambda side: side.agents(), b"<h1>canary</h1>"),
        (lambda side: side.agents(), b'[{"id": "a", "name": "canary\xff"}]'),
        (lambda side: side.agents(), b'[{"id": "a", "name": "canary", "size": NaN}]'),
        (lambda side: side.agents(), b'[{"id": "a", "name": "canary", "size": ' + b"1" * 5000 + b"}]"),
        (lambda side: side.agents(), b"[" * 200_000 + b"]" * 200_000),
        (lambda side: side.agents(), b'[{"id": "a", "name": "A", "deep": ' + b"[" * 20 + b"]" * 20 + b"}]"),
        (lambda side: side.conversations(), [{"id": "canary", "title": 5}]),
        (lambda side: side.conversation("c"), None),
        (lambda side: side.conversation("c"), [{"id": "canary", "title": "T", "messages": []}]),
        (lambda side: side.conversation("c"), {"id": "canary", "title": "T"}),
        (lambda side: side.conversation("c"), {"id": "canary", "title": "T", "messages": None}),
        (lambda side: side.conversation("c"), {"id": "c", "title": "T", "messages": [{"id": "canary", "text": ""}]}),
        (lambda side: side.create_conversation("a", "T"), {"title": "canary"}),
    ],
)
def test_unknown_json_is_an_error_showing_nothing(
    chat_at: ChatAt, call: Callable[[Side], object], content: object
) -> None:
    error = chat_at(answering(content)).error_of(call)
    assert isinstance(error, AIRiskInvalidResponse)
    assert "canary" not in str(error) + shown_variables(error)


def test_half_a_character_does_no_harm(chat_at: ChatAt) -> None:
    content = rb'[{"id": "a", "name": "\ud83d\uddfc \ud83d \u00fc"}]'
    assert chat_at(answering(content)).side.agents()[0]["name"] == "🗼 \ufffd ü"


# Limits


def test_endless_answer_ends_in_an_error(chat_at: ChatAt) -> None:
    error = chat_at(flooding(CHUNKED, chunk(b" " * 1_000_000))).error_of(lambda side: side.agents())
    assert isinstance(error, AIRiskInvalidResponse)


@pytest.mark.parametrize("drop", [b"", b" "], ids=["silent", "dripping"])
def test_slow_answer_ends_in_an_error(chat_at: ChatAt, drop: bytes) -> None:
    script = dripping(CHUNKED, chunk(drop)) if drop else in_turn(saying(CHUNKED), silent)
    began = time.monotonic()
    error = chat_at(script, API_TIMEOUT=(1, 0.2)).error_of(lambda side: side.agents())
    assert isinstance(error, AIRiskUnavailable)
    assert time.monotonic() - began < SOON


def _deflated(data: bytes) -> bytes:
    return zlib.compress(data)


AGENTS = json.dumps([{"id": "a", "name": "Reader"}]).encode()


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("identity", AGENTS),
        ("gzip", gzip.compress(AGENTS)),
        ("X-GZIP", gzip.compress(AGENTS)),
        ("deflate", _deflated(AGENTS)),
        ("gzip", gzip.compress(AGENTS[:9]) + gzip.compress(b"") + gzip.compress(AGENTS[9:])),
    ],
)
def test_packed_answer_is_unpacked(chat_at: ChatAt, encoding: str, body: bytes) -> None:
    """Nobody asks for it, but some gateways do it."""
    assert chat_at(answering(body, f"Content-Encoding: {encoding}")).side.agents() == json.loads(AGENTS)


@pytest.mark.parametrize(
    ("encoding", "body"), [("br", AGENTS), ("gzip", AGENTS), ("gzip", gzip.compress(bytes(10**8)))]
)
def test_what_cannot_be_unpacked_is_an_error(chat_at: ChatAt, encoding: str, body: bytes) -> None:
    scripted = chat_at(answering(body, f"Content-Encoding: {encoding}"))
    for call in (lambda side: side.agents(), lambda side: raise_error(side.take().error)):
        assert isinstance(scripted.error_of(call), AIRiskInvalidResponse)
