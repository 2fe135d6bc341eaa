"""The sandbox's chat API answers in the formats that AIRisk's client reads; all users see their own conversations."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from airisk_oauth.sandbox.world import Caller, World, world

NOON = datetime(2025, 3, 31, 12, tzinfo=UTC).timestamp()
CONVERSATION = {
    "id": str, "title": str, "botID": str, "userID": str, "companyId": str, "threadID": str, "lastUpdated": str,
    "createdDate": str, "hasFlag": bool, "hasMore": bool, "isSaved": bool,
}  # fmt: skip
MESSAGE = {"id", "messageType", "text", "feedback", "fileName", "fileURL", "citations"}


class Chat:
    """AIRisk's API as one person calls it."""

    def __init__(self, client: Client, userid: str) -> None:
        token, _ends = world.new_token(Caller("client-1", userid))
        self.client, self.headers = client, {"Authorization": f"Bearer {token}"}

    def get(self, path: str, **query: str) -> Any:
        return self.client.get(f"/sandbox/api/{path}", query, headers=self.headers)

    def post(self, path: str, data: Any = None, **extra: Any) -> Any:
        as_json: Any = {} if extra else {"content_type": "application/json"}
        return self.client.post(f"/sandbox/api/{path}", data or {}, headers=self.headers, **as_json, **extra)

    def create(self, title: str = "A plan") -> str:
        agent = self.get("Chat/ListAgents").json()[0]["id"]
        created = self.post("Chat/CreateConversation", {"title": title, "agentId": agent, "metadata": []})
        return str(created.json()["id"])

    def ask(self, conversation_id: str, text: str = "Why?") -> bytes:
        answer = self.post("Chat/AskAgent", {"conversationID": conversation_id, "text": text})
        assert (answer.status_code, answer.streaming) == (200, True)
        return b"".join(answer.streaming_content)

    def messages(self, conversation_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get(f"Chat/GetConversation/{conversation_id}").json()["messages"]
        return found


@pytest.fixture(autouse=True)
def good_day(settings: Any) -> Iterator[World]:
    world.reset()
    yield world
    world.reset()


@pytest.fixture
def mia(client: Client) -> Chat:
    return Chat(client, "user_42")


def text_of(stream: bytes, is_old: bool) -> str:
    """Return the text of an answer in either format, after checking that it is complete."""
    if is_old:
        *events, last, rest = stream.decode().split("\n\n")
        assert (last, rest) == ("event: done\ndata: [DONE]", "")
        pieces = [re.fullmatch("event: thread.message.delta\ndata: (.*)", event) for event in events]
        return "".join(json.loads(piece[1])["delta"]["content"][0]["text"]["value"] for piece in pieces if piece)
    *lines, completed, done = stream.decode().splitlines()
    assert (json.loads(completed), done) == ({"UpdateKind": 6}, "[DONE]")
    updates = [json.loads(line) for line in lines]
    assert {update["UpdateKind"] for update in updates} == {21}
    return "".join(update["Text"] for update in updates)


def test_agents_have_the_form_the_client_reads(mia: Chat) -> None:
    agents = mia.get("Chat/ListAgents").json()
    assert len(agents) > 1
    for agent in agents:
        assert agent.keys() == {"id", "name", "description", "botSuggestion"}
        for suggestion in agent["botSuggestion"]:
            assert suggestion.keys() == {"id", "botID", "greeting", "greetingDescription", "imageName"}
            assert suggestion["botID"] == agent["id"]
    assert {type(agent["description"]) for agent in agents} == {str, type(None)}


def test_user_without_agents_gets_an_empty_list(mia: Chat) -> None:
    agent = mia.get("Chat/ListAgents").json()[0]["id"]
    world.switches.no_agents = True
    assert mia.get("Chat/ListAgents").json() == []
    refused = mia.post("Chat/CreateConversation", {"title": "A plan", "agentId": agent})
    assert (refused.status_code, refused.content) == (400, b"Invalid agentId")


def test_conversations_are_listed_latest_first(mia: Chat) -> None:
    world.clock = lambda: NOON
    found = mia.get("Chat/GetConversations").json()
    assert 3 <= len(found) <= 6
    for conversation in found:
        assert {name: type(value) for name, value in conversation.items()} == CONVERSATION
        assert conversation["userID"] == "user_42"
        assert 0 < NOON - datetime.fromisoformat(conversation["lastUpdated"]).timestamp() < 86_400
    updated = [conversation["lastUpdated"] for conversation in found]
    assert updated == sorted(updated, reverse=True)
    assert mia.get("GetConversations").json() == found


def test_conversation_ids_survive_a_reload(mia: Chat, client: Client) -> None:
    before = [each["id"] for each in mia.get("Chat/GetConversations").json()]
    world.reset()
    assert [each["id"] for each in Chat(client, "user_42").get("Chat/GetConversations").json()] == before


def test_paging_ends_in_an_empty_page(mia: Chat) -> None:
    for number in range(60):
        mia.create(f"Number {number}")
    pages = [mia.get("Chat/GetConversations", results="25", skip=str(skip)).json() for skip in (0, 25, 50, 75)]
    assert [len(page) for page in pages[:2]] == [25, 25]
    assert 10 < len(pages[2]) < 25
    assert pages[3] == []
    assert pages[0][0]["title"] == "Number 59"
    assert len({each["id"] for page in pages for each in page}) == sum(map(len, pages))
    assert len(mia.get("Chat/GetConversations").json()) == 50


@pytest.mark.parametrize("query", [{"skip": "-1"}, {"results": "x"}, {"skip": "1" * 10}, {"results": "²"}])
def test_invalid_page_is_refused(mia: Chat, query: dict[str, str]) -> None:
    assert mia.get("Chat/GetConversations", **query).status_code == 400


def test_conversation_comes_with_its_messages(mia: Chat) -> None:
    first = mia.get("Chat/GetConversations").json()[0]
    found = mia.get(f"Chat/GetConversation/{first['id']}").json()
    messages = found.pop("messages")
    assert found == first
    assert [message["messageType"] for message in messages] == ["User", "AI"]
    assert {frozenset(message) for message in messages} == {frozenset(MESSAGE)}


def test_conversations_of_others_are_not_found(mia: Chat, client: Client) -> None:
    ben, theirs = Chat(client, "user_7"), mia.create()
    assert theirs not in {each["id"] for each in ben.get("Chat/GetConversations").json()}
    feedback = {"conversationId": theirs, "messageId": "x", "feedback": "Like"}
    for refused in (
        ben.get(f"Chat/GetConversation/{theirs}"),
        ben.post("Chat/AskAgent", {"conversationID": theirs, "text": "Why?"}),
        ben.client.post(f"/sandbox/api/Chat/AddFileToConversation/{theirs}", {}, headers=ben.headers),
        ben.post("Chat/SubmitFeedback", query_params=feedback),
    ):
        assert (refused.status_code, refused.json()["title"]) == (404, "Not Found")


@pytest.mark.parametrize("is_old", [False, True])
def test_answer_is_streamed_in_both_formats(mia: Chat, is_old: bool) -> None:
    world.switches.old_stream = is_old
    conversation_id = mia.create()
    text = text_of(mia.ask(conversation_id, "Why ü?"), is_old)
    assert text.startswith("You asked: Why ü? ")
    assert "【4:0†policy.pdf】" in text
    asked, answered = mia.messages(conversation_id)
    assert (asked["messageType"], asked["text"]) == ("User", "Why ü?")
    assert (answered["messageType"], answered["text"]) == ("AI", text)
    assert answered["citations"][0].keys() == {"id", "title", "filepath", "url", "content"}
    assert mia.get("Chat/GetConversations").json()[0]["id"] == conversation_id


@pytest.mark.parametrize("is_old", [False, True])
def test_stream_can_break_off_in_the_middle(mia: Chat, is_old: bool) -> None:
    world.switches.old_stream, world.switches.stream_breaks_off = is_old, True
    stream = mia.ask(mia.create())
    assert b"You asked" in stream
    assert b"DONE" not in stream
    assert b"No other finding" not in stream


def test_first_text_can_be_slow(mia: Chat) -> None:
    world.switches.first_text_after = 0.05
    answer = mia.post("Chat/AskAgent", {"conversationID": mia.create(), "text": "Why?"})
    began = datetime.now(UTC)
    next(answer.streaming_content)
    assert (datetime.now(UTC) - began).total_seconds() >= 0.05


@pytest.mark.django_db
def test_stopped_answer_is_kept_in_part(mia: Chat) -> None:
    """Closing a response makes Django look at its database connections, so this needs a database."""
    conversation_id = mia.create()
    answer = mia.post("Chat/AskAgent", {"conversationID": conversation_id, "text": "Why?"})
    next(answer.streaming_content)
    answer.close()
    assert mia.messages(conversation_id)[-1]["text"] == "You asked: Why? "


def test_file_is_added_to_a_conversation(mia: Chat) -> None:
    conversation_id = mia.create()
    # Larger than the part of a body that Django keeps in memory.
    file = SimpleUploadedFile("plan.pdf", b"x" * 3_000_000)
    path, headers = f"/sandbox/api/Chat/AddFileToConversation/{conversation_id}", mia.headers
    answer = mia.client.post(path, {"plan.pdf": file}, headers=headers)
    assert (answer.status_code, answer.content) == (200, b"")
    assert [message["fileName"] for message in mia.messages(conversation_id)] == ["plan.pdf"]
    assert mia.client.post(path, {"plan.pdf": "no file"}, headers=headers).content == b"Invalid file"


@pytest.mark.parametrize("feedback", ["Like", "Dislike"])
def test_feedback_is_kept_with_the_message(mia: Chat, feedback: str) -> None:
    conversation_id = mia.create()
    mia.ask(conversation_id)
    _asked, answered = mia.messages(conversation_id)
    given = {"conversationId": conversation_id, "messageId": answered["id"], "feedback": feedback}
    answer = mia.post("Chat/SubmitFeedback", query_params=given)
    assert (answer.status_code, answer.content) == (200, b"")
    assert [message["feedback"] for message in mia.messages(conversation_id)] == [None, feedback]


@pytest.mark.parametrize(
    ("changes", "status"),
    [({"feedback": "Love"}, 400), ({"feedback": ""}, 400), ({"messageId": ""}, 400), ({"messageId": "x"}, 404)],
)
def test_invalid_feedback_is_refused(mia: Chat, changes: dict[str, str], status: int) -> None:
    given = {"conversationId": mia.create(), "messageId": "x", "feedback": "Like", **changes}
    assert mia.post("Chat/SubmitFeedback", query_params=given).status_code == status


@pytest.mark.parametrize(
    ("path", "given", "said"),
    [
        ("Chat/CreateConversation", {"title": "A plan"}, b"Invalid agentId"),
        ("Chat/CreateConversation", {"title": "A plan", "agentId": "x"}, b"Invalid agentId"),
        ("Chat/AskAgent", {"text": "Why?"}, b"Invalid conversationID"),
        ("Chat/AskAgent", {"conversationID": "x"}, b"Invalid text"),
    ],
)
def test_call_without_required_field_is_refused(mia: Chat, path: str, given: dict[str, str], said: bytes) -> None:
    answer = mia.post(path, given)
    assert (answer.status_code, answer.content) == (400, said)


def test_conversation_times_can_lack_an_offset(mia: Chat) -> None:
    world.clock = lambda: NOON
    mia.create()
    world.switches.no_offset = True
    assert mia.get("Chat/GetConversations").json()[0]["createdDate"] == "2025-03-31T11:59:59.9999999"
