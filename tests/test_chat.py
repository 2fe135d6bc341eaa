"""AIRisk's chat API on both sides: what is sent, what comes back, and where it ends."""

import asyncio
import gzip
import io
import json
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.core.files.base import ContentFile
from django.core.files.uploadedfile import SimpleUploadedFile

from airisk_oauth import AIRiskSession, AsyncAIRiskClient
from airisk_oauth import chat as chat_module
from airisk_oauth.client import chat_rules
from airisk_oauth.exceptions import (
    AIRiskError,
    AIRiskInvalidResponse,
    AIRiskRefused,
    AIRiskUnavailable,
    ConnectionRequired,
)
from airisk_oauth.models import AIRiskToken
from airisk_oauth.sandbox.chat import agents
from airisk_oauth.sandbox.world import World
from tests.support.chat import QUESTION
from tests.support.chats import (
    CHUNKED,
    CONVERSATION,
    HEAD,
    SIDES,
    BlockingSide,
    Side,
    Watched,
    chunk,
    new_stream,
    old_stream,
    side_of,
)
from tests.support.clock import wait_until
from tests.support.options import set_option
from tests.support.people import api_statuses, give_token, live_token, stored, token_requests
from tests.support.tracebacks import shown_variables
from tests.support.wire import Script, Serve, Server, dripping, flooding, http, reset, saying, silent

pytestmark = pytest.mark.django_db

#: Seconds that nothing here takes, on a machine with much to do.
SOON = 5


@pytest.fixture(params=SIDES)
def chat(request: pytest.FixtureRequest, airisk: World, mia: User) -> Iterator[Side]:
    """Mia's chat with the sandbox."""
    live_token(airisk, mia)
    with side_of(request.param, mia) as side:
        yield side


@pytest.fixture(params=SIDES)
def kind(request: pytest.FixtureRequest) -> type[Side]:
    found: type[Side] = request.param
    return found


def give_canary(user: User) -> None:
    """Store a token from before its origin was noted: the server's address is known too late."""
    give_token(user, access_token="token-canary")
    AIRiskToken.objects.update(origin="")


class Scripted:
    """Mia's chat with a server that does what a script says."""

    def __init__(self, server: Server, side: Side) -> None:
        self.server, self.side = server, side

    def error_of(self, call: Callable[[Side], object]) -> AIRiskError:
        with pytest.raises(AIRiskError) as raised:
            call(self.side)
        return raised.value


At = Callable[..., Scripted]


@pytest.fixture
def at(kind: type[Side], mia: User, settings: Any, serve: Serve) -> Iterator[At]:
    give_canary(mia)
    with ExitStack() as stack:

        def at(script: Script, **options: Any) -> Scripted:
            server = serve(script)
            set_option(settings, BASE_URL=server.url, **options)
            return Scripted(server, stack.enter_context(side_of(kind, mia)))

        yield at


def answering(content: object, *headers: str, status: str = "200 OK") -> Script:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return saying(http(body, status, *headers))


def in_turn(*scripts: Script) -> Script:
    def script(sock: Any) -> None:
        for each in scripts:
            each(sock)

    return script


def pausing(_sock: Any) -> None:
    time.sleep(0.2)


# Agents and conversations


def test_agents_come_as_airisk_sends_them(chat: Side, airisk: World) -> None:
    assert chat.agents() == agents()
    airisk.switches.no_agents = True
    assert chat.agents() == []


def test_fields_that_nobody_knows_are_kept(at: At) -> None:
    agent = {"id": "a", "name": "Reader", "botSuggestion": None, "colour": {"light": ["#fff"]}}
    assert at(answering([agent])).side.agents() == [agent]
    conversation = {"id": "c", "title": None, "mood": 5, "messages": [{"id": "m", "messageType": "Tool", "text": None}]}
    assert at(answering(conversation)).side.conversation("c") == conversation


def test_all_conversations_come_page_by_page(chat: Side, airisk: World) -> None:
    agent = chat.agents()[0]["id"]
    created = [chat.create_conversation(agent, f"Number {number}")["id"] for number in range(60)]
    before = len(airisk.journal)
    found = [each["id"] for each in chat.conversations()]
    assert found[:60] == created[::-1]
    assert len(found) == len(set(found)) > 60
    assert [seen.parameters for seen in airisk.journal[before:]] == [("results", "skip")] * 3


def test_pages_are_fetched_as_they_are_needed(airisk: World, mia: User) -> None:
    live_token(airisk, mia)
    with AIRiskSession.for_user(mia) as session:
        next(session.chat.conversations())

    @async_to_sync
    async def main() -> None:
        async with AsyncAIRiskClient.for_user(mia) as client:
            async for _conversation in client.chat.conversations():
                break

    main()
    assert api_statuses(airisk) == [200, 200]


def _page(*ids: object) -> list[dict[str, Any]]:
    return [{"id": str(each), "title": "T"} for each in ids]


def _skip_of(request: bytes) -> int:
    return int(parse_qs(urlsplit(request.split(b" ")[1].decode()).query)["skip"][0])


def paging(page: Callable[[int], list[dict[str, Any]]], seen: list[int]) -> Callable[[Server], Script]:
    def script_of(server: Server) -> Script:
        def script(sock: Any) -> None:
            seen.append(_skip_of(server.seen[-1]))
            answering(page(seen[-1]))(sock)

        return script

    return script_of


def conversations_at(at: At, page: Callable[[int], list[dict[str, Any]]], seen: list[int]) -> list[Any]:
    scripted = at(silent)
    scripted.server.script = paging(page, seen)(scripted.server)
    return [each["id"] for each in scripted.side.conversations()]


def test_page_that_is_repeated_ends_the_list(at: At) -> None:
    seen: list[int] = []
    assert conversations_at(at, lambda _skip: _page("a", "b"), seen) == ["a", "b"]
    assert seen == [0, 2]


def test_conversation_that_moves_on_comes_once(at: At) -> None:
    """Somebody begins another one between two pages."""
    pages = {0: _page(*range(50)), 50: _page(49, *range(50, 99)), 100: _page()}
    seen: list[int] = []
    assert conversations_at(at, pages.__getitem__, seen) == [str(each) for each in range(99)]
    assert seen == [0, 50, 100]


def test_list_without_an_end_is_an_error(at: At, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_rules, "MAX_PAGES", 3)
    seen: list[int] = []
    with pytest.raises(AIRiskInvalidResponse, match="does not end"):
        conversations_at(at, lambda skip: _page(skip), seen)
    assert seen == [0, 1, 2]


def test_conversation_has_messages_and_citations(chat: Side) -> None:
    created = chat.create_conversation(chat.agents()[0]["id"], "A plan")
    assert created["title"] == "A plan"
    answer = chat.take(to=created["id"], text="Why ü?")
    asked, answered = chat.conversation(UUID(created["id"]))["messages"]
    assert (asked["messageType"], asked["text"]) == ("User", "Why ü?")
    assert (answered["messageType"], answered["text"]) == ("AI", answer.text)
    citations = answered["citations"]
    assert citations is not None
    assert citations[0]["filepath"] == "policies/policy.pdf"
    chat.rate(created["id"], answered["id"], "Dislike")
    assert chat.conversation(created["id"])["messages"][1]["feedback"] == "Dislike"
    with pytest.raises(ValueError, match="Like"):
        chat.rate(created["id"], answered["id"], "Love")  # type: ignore[arg-type]


# Files


@pytest.mark.parametrize(
    ("file", "filename", "sent_as"),
    [
        (b"content", "plan ü.pdf", "plan ü.pdf"),
        (SimpleUploadedFile("plan.pdf", b"content"), None, "plan.pdf"),
        (ContentFile(b"content", name="plans/plan.unknown"), None, "plan.unknown"),
        (io.BytesIO(b"content"), "plan", "plan"),
    ],
    ids=["bytes", "upload", "file", "stream"],
)
def test_file_is_attached_under_its_name(at: At, file: Any, filename: str | None, sent_as: str) -> None:
    scripted = at(answering(b""))
    if hasattr(file, "read"):
        # As after a look at its first bytes.
        file.read(3)
    scripted.side.attach("c/1", file, filename)
    [request] = scripted.server.seen
    assert request.startswith(b"POST /api/Chat/AddFileToConversation/c%2F1 ")
    assert request.count(sent_as.encode()) == 2
    assert b"\r\n\r\ncontent\r\n" in request


def test_file_without_a_name_is_an_error(at: At) -> None:
    with pytest.raises(ValueError, match="filename"):
        at(silent).side.attach("c", b"content")


class Once(io.FileIO):
    """A file that cannot be rewound, of known length."""

    def seekable(self) -> bool:
        return False


def test_file_is_sent_again_after_a_401(chat: Side, airisk: World, tmp_path: Path) -> None:
    conversation = chat.create_conversation(chat.agents()[0]["id"], "A plan")["id"]
    for file in (io.BytesIO(b"content"), b"content"):
        airisk.end_all_tokens()
        chat.attach(conversation, file, "plan.pdf")
    messages = chat.conversation(conversation)["messages"]
    assert [message["fileName"] for message in messages] == ["plan.pdf", "plan.pdf"]
    assert api_statuses(airisk).count(401) == 2
    airisk.end_all_tokens()
    plan = tmp_path / "plan.pdf"
    plan.write_bytes(b"content")
    with Once(plan) as once:
        if isinstance(chat, BlockingSide):
            # It is in memory.
            chat.attach(conversation, once)
        else:
            with pytest.raises(AIRiskRefused) as raised:
                chat.attach(conversation, once)
            assert raised.value.status == 401


# Where to


@pytest.mark.parametrize("identifier", ["", ".", "..", "\ud800"])
def test_id_that_would_lead_elsewhere_is_refused(at: At, identifier: str) -> None:
    scripted = at(answering(b""))
    for call in (lambda side: side.conversation(identifier), lambda side: side.attach(identifier, b"", "a")):
        error = scripted.error_of(call)
        assert isinstance(error, AIRiskRefused)
        assert error.status == 404
    assert scripted.server.seen == []


def test_any_other_id_is_one_part_of_the_path(at: At) -> None:
    scripted = at(answering({}))
    scripted.error_of(lambda side: side.conversation("../a?b=c#d%2e é"))
    assert scripted.server.seen[0].startswith(b"GET /api/Chat/GetConversation/..%2Fa%3Fb%3Dc%23d%252e%20%C3%A9 ")


def test_question_is_sent_as_the_client_sends_it(at: At) -> None:
    scripted = at(saying(HEAD + b"\r\n" + new_stream("a")))
    identifier = uuid4()
    scripted.side.take(to=identifier, text="Why ü?")  # type: ignore[arg-type]
    headers, _, body = scripted.server.seen[0].partition(b"\r\n\r\n")
    assert headers.startswith(b"POST /api/Chat/AskAgent ")
    assert json.loads(body) == {"conversationID": str(identifier), "text": "Why ü?"}
    sent = {name.lower(): value for name, value in scripted.server.headers().items()}
    assert (sent["accept"], sent["accept-encoding"]) == ("text/event-stream", "identity")
    assert sent["authorization"] == "Bearer token-canary"


# Errors


def calls_of(side: Side) -> list[Callable[[], object]]:
    return [
        side.agents,
        side.conversations,
        lambda: side.conversation("c"),
        lambda: side.create_conversation("a", "T"),
        lambda: side.attach("c", b"", "plan.pdf"),
        lambda: side.rate("c", "m", "Like"),
        lambda: raise_error(side.take().error),
    ]


def raise_error(error: BaseException | None) -> None:
    if error is not None:
        raise error


def test_refusal_has_its_reason_and_trace_id(at: At) -> None:
    content = {"title": "Forbidden", "status": 403, "traceId": "00-676e-01-00"}
    scripted = at(answering(content, "Content-Type: application/problem+json", status="403 Forbidden"))
    for call in calls_of(scripted.side):
        with pytest.raises(AIRiskRefused) as raised:
            call()
        error = raised.value
        assert (error.status, error.reason, error.trace_id) == (403, "Forbidden", "00-676e-01-00")


@pytest.mark.parametrize("body", [b"Not your token: token-canary", b"x" * 100_000, b"\xff\xfe", b""])
def test_refusal_repeats_nothing_secret(at: At, body: bytes) -> None:
    scripted = at(answering(body, "Content-Type: text/plain", status="400 Bad Request"))
    for call in calls_of(scripted.side):
        with pytest.raises(AIRiskRefused) as raised:
            call()
        assert (raised.value.status, raised.value.reason) == (400, "")
        assert "canary" not in shown_variables(raised.value)


def test_refusal_that_breaks_off_is_one_all_the_same(at: At) -> None:
    for head in ("Content-Length: 99", "Content-Length: 9\r\nContent-Encoding: gzip"):
        scripted = at(saying(f"HTTP/1.1 404 Not Found\r\n{head}\r\n\r\n{{}}".encode()))
        error = scripted.error_of(lambda side: side.conversation("c"))
        assert isinstance(error, AIRiskRefused)
        assert error.status == 404


@pytest.mark.parametrize("status", ["429 Too Many Requests", "500 Internal Server Error", "503 Service Unavailable"])
def test_outage_is_unavailable_and_says_for_how_long(at: At, status: str) -> None:
    scripted = at(answering(b"<h1>Down</h1>", "Retry-After: 7", status=status))
    for call in calls_of(scripted.side):
        with pytest.raises(AIRiskUnavailable, match=status[:3]) as raised:
            call()
        assert raised.value.retry_after == 7


@pytest.mark.parametrize("status", ["302 Found", "304 Not Modified"])
def test_redirect_is_an_invalid_response(at: At, status: str) -> None:
    scripted = at(answering(b"", "Location: /api/Chat/ListAgents", status=status))
    for call in calls_of(scripted.side):
        with pytest.raises(AIRiskInvalidResponse, match=status[:3]):
            call()
    assert len(scripted.server.seen) == len(calls_of(scripted.side))


def test_without_a_connection_one_is_required(kind: type[Side], airisk: World, mia: User) -> None:
    with side_of(kind, mia) as side:
        for call in calls_of(side):
            with pytest.raises(ConnectionRequired) as raised:
                call()
            assert raised.value.connect_url == "/airisk/connect/"
    assert api_statuses(airisk) == []


def test_call_is_repeated_with_a_new_token_after_401(chat: Side, airisk: World, mia: User) -> None:
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
def test_unknown_shape_is_an_error_that_shows_nothing(at: At, call: Callable[[Side], object], content: object) -> None:
    error = at(answering(content)).error_of(call)
    assert isinstance(error, AIRiskInvalidResponse)
    assert "canary" not in str(error) + shown_variables(error)


def test_half_a_character_does_no_harm(at: At) -> None:
    content = rb'[{"id": "a", "name": "\ud83d\uddfc \ud83d \u00fc"}]'
    assert at(answering(content)).side.agents()[0]["name"] == "🗼 \ufffd ü"


# Limits


def test_endless_answer_ends_in_an_error(at: At) -> None:
    error = at(flooding(CHUNKED, chunk(b" " * 1_000_000))).error_of(lambda side: side.agents())
    assert isinstance(error, AIRiskInvalidResponse)


@pytest.mark.parametrize("drop", [b"", b" "], ids=["silent", "dripping"])
def test_slow_answer_ends_in_an_error(at: At, drop: bytes) -> None:
    script = dripping(CHUNKED, chunk(drop)) if drop else in_turn(saying(CHUNKED), silent)
    began = time.monotonic()
    error = at(script, API_TIMEOUT=(1, 0.2)).error_of(lambda side: side.agents())
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
def test_packed_answer_is_unpacked(at: At, encoding: str, body: bytes) -> None:
    """Nobody asks for it, but some gateways do it."""
    assert at(answering(body, f"Content-Encoding: {encoding}")).side.agents() == json.loads(AGENTS)


@pytest.mark.parametrize(
    ("encoding", "body"), [("br", AGENTS), ("gzip", AGENTS), ("gzip", gzip.compress(bytes(10**8)))]
)
def test_what_cannot_be_unpacked_is_an_error(at: At, encoding: str, body: bytes) -> None:
    scripted = at(answering(body, f"Content-Encoding: {encoding}"))
    for call in (lambda side: side.agents(), lambda side: raise_error(side.take().error)):
        assert isinstance(scripted.error_of(call), AIRiskInvalidResponse)


# Answers

TEXTS = ["Grüße ", "from 東京 🗼 ", "【4:0†policy.pdf】"]


@pytest.mark.parametrize("is_old", [False, True])
def test_answer_comes_in_both_shapes(chat: Side, airisk: World, is_old: bool) -> None:
    airisk.switches.old_stream = is_old
    answer = chat.take(to=QUESTION["conversationID"])
    assert answer.pieces[0] == "You asked: Why? "
    assert len(answer.pieces) == 4
    assert "【4:0†policy.pdf】" in answer.text
    assert answer == (answer.pieces, "".join(answer.pieces), "completed", None)


@pytest.mark.parametrize("stream", [old_stream(*TEXTS), new_stream(*TEXTS)], ids=["old", "new"])
@pytest.mark.parametrize("framing", ["chunks", "one chunk", "length", "hang-up", "packed"])
def test_pieces_come_across_any_border(at: At, stream: bytes, framing: str) -> None:
    """Also in the middle of a letter, byte by byte."""
    parts = [stream[place : place + 1] for place in range(len(stream))]
    scripts = {
        "chunks": saying(CHUNKED, *map(chunk, [*parts, b""])),
        "one chunk": saying(CHUNKED, chunk(stream), chunk(b"")),
        "length": saying(HEAD + f"Content-Length: {len(stream)}\r\n\r\n".encode(), *parts),
        "hang-up": saying(HEAD + b"\r\n", *parts),
        "packed": saying(HEAD + b"Content-Encoding: gzip\r\n\r\n", gzip.compress(stream)),
    }
    assert at(scripts[framing]).side.take() == (TEXTS, "".join(TEXTS), "completed", None)


def test_piece_comes_before_the_next_is_written(at: At) -> None:
    script = Watched(CHUNKED + chunk(new_stream("One. ", end="")), chunk(new_stream("Two.")) + chunk(b""))
    scripted = at(script)
    assert scripted.side.take(most=1).pieces == ["One. "]
    assert not script.go_on.is_set()
    script.go_on.set()


@pytest.mark.parametrize(
    "script",
    [
        saying(CHUNKED, chunk(new_stream("One. ", end=""))),
        saying(CHUNKED, chunk(new_stream("One. ", end="")), chunk(b"")),
        saying(CHUNKED, chunk(new_stream("One. ", end='{"Upd')), b"ff\r\nhalf"),
        saying(HEAD + b"Content-Length: 999\r\n\r\n" + new_stream("One. ", end="")),
        saying(HEAD + b"\r\n" + new_stream("One. ", end="")),
        saying(CHUNKED, chunk(new_stream("One. ", end="")), b"no chunk\r\n"),
        in_turn(saying(CHUNKED, chunk(new_stream("One. ", end=""))), pausing, reset),
    ],
)
def test_stream_that_breaks_off_is_unavailable(at: At, script: Script) -> None:
    answer = at(script).side.take()
    assert (answer.pieces, answer.text, answer.status) == (["One. "], "One. ", None)
    assert isinstance(answer.error, AIRiskUnavailable)
    assert "canary" not in shown_variables(answer.error)


def test_pieces_before_what_is_unknown_are_kept(at: At) -> None:
    answer = at(saying(CHUNKED, chunk(new_stream("One. ", end="<h1>\n")))).side.take()
    assert (answer.pieces, answer.status) == (["One. "], None)
    assert isinstance(answer.error, AIRiskInvalidResponse)
    script = Watched(
        HEAD + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(new_stream("One. ", end=""))[:-4], b"junk"
    )
    threading.Timer(0.2, script.go_on.set).start()
    answer = at(script).side.take()
    assert answer.pieces == ["One. "]
    assert isinstance(answer.error, AIRiskInvalidResponse)


@pytest.mark.parametrize("status", ["completed", "incomplete", "failed"])
def test_status_says_how_the_answer_ended(at: At, status: str) -> None:
    kind = {"completed": 6, "incomplete": 7, "failed": 8}[status]
    stream = new_stream("One.", end=f'{{"UpdateKind": {kind}}}\n[DONE]\n')
    assert at(saying(HEAD + b"\r\n" + stream)).side.take() == (["One."], "One.", status, None)


# Waiting


def test_first_text_may_take_longer_than_other_calls(at: At) -> None:
    text = chunk(new_stream("One.")) + chunk(b"")
    for head, rest in ((b"", CHUNKED + text), (CHUNKED, text)):
        script = Watched(head, rest)
        timer = threading.Timer(0.6, script.go_on.set)
        timer.start()
        assert at(script, API_TIMEOUT=(1, 0.2)).side.take().text == "One."


@pytest.mark.parametrize(
    "script",
    [
        silent,
        in_turn(saying(CHUNKED), silent),
        in_turn(saying(CHUNKED + b"ff"), silent),
        in_turn(pausing, dripping(CHUNKED, chunk(b': waiting\n\n{"UpdateKind": 1}\n'))),
        dripping(CHUNKED + b"1;", b"x"),
        dripping(b"", b"H"),
    ],
    ids=["silent", "headers", "half a chunk", "noises", "chunk size", "status line"],
)
def test_first_text_that_never_comes_is_an_error(at: At, script: Script) -> None:
    scripted, began = at(script), time.monotonic()
    answer = scripted.side.take(first_text_timeout=0.4)
    assert isinstance(answer.error, AIRiskUnavailable)
    assert 0.3 < time.monotonic() - began < SOON


def test_later_text_that_never_comes_is_an_error(at: At) -> None:
    script = Watched(CHUNKED + chunk(new_stream("One. ", end="")))
    answer = at(script).side.take(first_text_timeout=0.3)
    assert (answer.pieces, answer.status) == (["One. "], None)
    assert isinstance(answer.error, AIRiskUnavailable)
    assert script.left.wait(SOON)


def test_missing_mark_after_the_end_is_no_error(at: At) -> None:
    script = Watched(CHUNKED + chunk(new_stream("One. ", end='{"UpdateKind": 6}\n')))
    answer = at(script).side.take(first_text_timeout=0.3)
    assert answer == (["One. "], "One. ", "completed", None)


def test_complete_answer_waits_for_airisk_for_a_second(at: At) -> None:
    """AIRisk may be saving it; a stream that goes on is left."""
    whole = chunk(new_stream("One. "))
    for script in (Watched(CHUNKED + whole), dripping(CHUNKED + whole, chunk(b"\n")), saying(CHUNKED + whole, b"junk")):
        began = time.monotonic()
        assert at(script).side.take().status == "completed"
        assert time.monotonic() - began < SOON
    script = Watched(CHUNKED + whole, chunk(b""))
    threading.Timer(0.2, script.go_on.set).start()
    began = time.monotonic()
    assert at(script).side.take().status == "completed"
    assert script.left.wait(SOON)
    assert script.left_at - began >= 0.2


# Leaving


def test_leaving_early_closes_the_call(at: At) -> None:
    script = Watched(CHUNKED + chunk(new_stream("One. ", "Two. ", end="")))
    answer = at(script).side.take(most=1)
    left = time.monotonic()
    assert answer == (["One. "], "One. ", None, None)
    assert script.left.wait(SOON)
    assert script.left_at - left < 1


@pytest.mark.parametrize("pieces", [0, 1])
def test_cancelled_task_closes_the_call(settings: Any, serve: Serve, mia: User, pieces: int) -> None:
    give_canary(mia)
    script = Watched(CHUNKED + chunk(new_stream(*["One. "] * pieces, end="x"))[:-3])
    set_option(settings, BASE_URL=serve(script).url)
    errors: list[BaseException] = []

    async def take(client: AsyncAIRiskClient) -> None:
        try:
            async with client.chat.ask(CONVERSATION, "Why?") as answer:
                async for _piece in answer:
                    pass
        except asyncio.CancelledError as error:
            errors.append(error)
            raise

    @async_to_sync
    async def main() -> None:
        async with AsyncAIRiskClient.for_user(mia) as client:
            task = asyncio.ensure_future(take(client))
            assert await asyncio.to_thread(script.asked.wait, SOON)
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(script.left.wait, 1)

    main()
    assert "canary" not in shown_variables(errors[0])


def test_answer_is_an_iterator_and_asks_once(settings: Any, serve: Serve, mia: User) -> None:
    give_canary(mia)
    server = serve(saying(HEAD + b"\r\n" + new_stream("One. ", "Two. ")))
    set_option(settings, BASE_URL=server.url)
    with AIRiskSession.for_user(mia) as session:
        answer = session.chat.ask(CONVERSATION, "Why?")
        assert (answer.text, answer.status, server.seen) == ("", None, [])
        assert next(answer) == "One. "
        assert (answer.text, answer.status) == ("One. ", None)
        assert list(answer) == ["Two. "]
        assert (answer.text, answer.status, list(answer)) == ("One. Two. ", "completed", [])
        with answer:
            assert list(answer) == []
        with session.chat.ask(CONVERSATION, "Why?") as left:
            pass
        with pytest.raises(RuntimeError, match="closed"):
            next(left)
        session.chat.ask(CONVERSATION, "Why?").close()
        assert len(server.seen) == 2


def test_connection_is_used_again_after_an_answer(airisk: World, mia: User) -> None:
    live_token(airisk, mia)
    with AIRiskSession.for_user(mia) as session:
        for _answer in range(2):
            with session.chat.ask(QUESTION["conversationID"], "Why?") as answer:
                assert len(list(answer)) == 4
            session.chat.agents()
        assert session.chat is not session.chat


# Names


def test_types_can_be_imported_by_name() -> None:
    for name in chat_module.__all__:
        assert getattr(chat_module, name).__name__ if name not in ("AnswerStatus", "Feedback") else True
    assert not hasattr(chat_module, "Nothing")
    assert "token-canary" not in repr(chat_rules.question("c", "token-canary", 1))


def test_sandbox_keeps_what_was_taken(chat: Side) -> None:
    """Closing the connection is the only way to stop an answer."""
    conversation = chat.create_conversation(chat.agents()[0]["id"], "A plan")["id"]
    chat.take(most=1, to=conversation)
    wait_until(lambda: len(chat.conversation(conversation)["messages"]) == 2)
