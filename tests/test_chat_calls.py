"""The calls of AIRisk's chat API on both sides: what is sent, and what is returned."""

import io
import json
from collections.abc import Callable
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
from airisk_oauth.client import chat_rules
from airisk_oauth.exceptions import AIRiskInvalidResponse, AIRiskRefused
from airisk_oauth.sandbox.chat import agents
from airisk_oauth.sandbox.world import World
from tests.support.chats import (
    HEAD,
    BlockingSide,
    ChatAt,
    Side,
    answering,
    new_stream,
)
from tests.support.people import api_statuses, live_token
from tests.support.wire import Script, Server, saying, silent

pytestmark = pytest.mark.django_db


def test_agents_come_as_airisk_sends_them(chat: Side, airisk: World) -> None:
    assert chat.agents() == agents()
    airisk.switches.no_agents = True
    assert chat.agents() == []


def test_fields_that_nobody_knows_are_kept(chat_at: ChatAt) -> None:
    agent = {"id": "a", "name": "Reader", "botSuggestion": None, "colour": {"light": ["#fff"]}}
    assert chat_at(answering([agent])).side.agents() == [agent]
    conversation = {"id": "c", "title": None, "mood": 5, "messages": [{"id": "m", "messageType": "Tool", "text": None}]}
    assert chat_at(answering(conversation)).side.conversation("c") == conversation


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


def conversations_at(chat_at: ChatAt, page: Callable[[int], list[dict[str, Any]]], seen: list[int]) -> list[Any]:
    scripted = chat_at(silent)
    scripted.server.script = paging(page, seen)(scripted.server)
    return [each["id"] for each in scripted.side.conversations()]


def test_page_that_is_repeated_ends_the_list(chat_at: ChatAt) -> None:
    seen: list[int] = []
    assert conversations_at(chat_at, lambda _skip: _page("a", "b"), seen) == ["a", "b"]
    assert seen == [0, 2]


def test_conversation_that_moves_on_comes_once(chat_at: ChatAt) -> None:
    """Somebody begins another one between two pages."""
    pages = {0: _page(*range(50)), 50: _page(49, *range(50, 99)), 100: _page()}
    seen: list[int] = []
    assert conversations_at(chat_at, pages.__getitem__, seen) == [str(each) for each in range(99)]
    assert seen == [0, 50, 100]


def test_list_without_an_end_is_an_error(chat_at: ChatAt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_rules, "MAX_PAGES", 3)
    seen: list[int] = []
    with pytest.raises(AIRiskInvalidResponse, match="does not end"):
        conversations_at(chat_at, lambda skip: _page(skip), seen)
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
def test_file_is_attached_under_its_name(chat_at: ChatAt, file: Any, filename: str | None, sent_as: str) -> None:
    scripted = chat_at(answering(b""))
    if hasattr(file, "read"):
        # As after a look at its first bytes.
        file.read(3)
    scripted.side.attach("c/1", file, filename)
    [request] = scripted.server.seen
    assert request.startswith(b"POST /api/Chat/AddFileToConversation/c%2F1 ")
    assert request.count(sent_as.encode()) == 2
    assert b"\r\n\r\ncontent\r\n" in request


def test_file_without_a_name_is_an_error(chat_at: ChatAt) -> None:
    with pytest.raises(ValueError, match="filename"):
        chat_at(silent).side.attach("c", b"content")


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
def test_id_that_would_lead_elsewhere_is_refused(chat_at: ChatAt, identifier: str) -> None:
    scripted = chat_at(answering(b""))
    for call in (lambda side: side.conversation(identifier), lambda side: side.attach(identifier, b"", "a")):
        error = scripted.error_of(call)
        assert isinstance(error, AIRiskRefused)
        assert error.status == 404
    assert scripted.server.seen == []


def test_any_other_id_is_one_part_of_the_path(chat_at: ChatAt) -> None:
    scripted = chat_at(answering({}))
    scripted.error_of(lambda side: side.conversation("../a?b=c#d%2e é"))
    assert scripted.server.seen[0].startswith(b"GET /api/Chat/GetConversation/..%2Fa%3Fb%3Dc%23d%252e%20%C3%A9 ")


def test_question_is_sent_as_the_client_sends_it(chat_at: ChatAt) -> None:
    scripted = chat_at(saying(HEAD + b"\r\n" + new_stream("a")))
    identifier = uuid4()
    scripted.side.take(to=identifier, text="Why ü?")  # type: ignore[arg-type]
    headers, _, body = scripted.server.seen[0].partition(b"\r\n\r\n")
    assert headers.startswith(b"POST /api/Chat/AskAgent ")
    assert json.loads(body) == {"conversationID": str(identifier), "text": "Why ü?"}
    sent = {name.lower(): value for name, value in scripted.server.headers().items()}
    assert (sent["accept"], sent["accept-encoding"]) == ("text/event-stream", "identity")
    assert sent["authorization"] == "Bearer token-canary"
