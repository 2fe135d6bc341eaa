"""The calls of AIRisk's chat API: what is sent, and which answers are accepted. Coroutines over ``call``.

Source: the code of AIRisk's public client. AIRisk documents none of these calls.
"""

import json
import re
from collections.abc import Callable, Mapping
from mimetypes import guess_type
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from ..exceptions import AIRiskInvalidResponse, AIRiskRefused
from ..oauth.refusals import MAX_DEPTH
from .chat_calls import Call, ChatRequest, check_accepted, read_body
from .chat_stream import whole_characters
from .chat_types import Agent, Conversation, Feedback

if TYPE_CHECKING:
    from uuid import UUID

#: Conversations per page.
PAGE: Final = 50
#: More pages than anybody has.
MAX_PAGES: Final = 2_000
#: The longest answer in JSON, in bytes.
MAX_JSON: Final = 16 * 1024 * 1024

# By field: whether it may be null. Other fields are not checked.
_AGENT: Final = {"id": False, "name": False}
_CONVERSATION: Final = {"id": False, "title": True}
_MESSAGE: Final = {"id": False, "messageType": False, "text": True}
#: Lists of objects, which may be null or missing.
_LISTS: Final = ("botSuggestion", "citations")

_SURROGATE: Final = rb"\\u[dD][89a-fA-F]"
_STREAM_HEADERS: Final = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}


class ChatRules:
    """The calls that are answered with JSON, or with nothing.

    :param seconds: how long the body of an answer may take.
    """

    def __init__(self, call: Call, seconds: float) -> None:
        self._call = call
        self._seconds = seconds

    async def agents(self) -> list[Agent]:
        agents: list[Agent] = await self._json(ChatRequest("GET", "/api/Chat/ListAgents"), _are_agents)
        return agents

    async def conversations(self, skip: int) -> list[Conversation]:
        """Return one page; the page after the last is empty."""
        params = {"results": str(PAGE), "skip": str(skip)}
        request = ChatRequest("GET", "/api/Chat/GetConversations", params)
        page: list[Conversation] = await self._json(request, _are_conversations)
        return page

    async def conversation(self, conversation_id: "str | UUID") -> Conversation:
        path = f"/api/Chat/GetConversation/{_in_path(conversation_id)}"
        found: Conversation = await self._json(ChatRequest("GET", path), _is_whole_conversation)
        return found

    async def create_conversation(self, agent_id: "str | UUID", title: str) -> Conversation:
        body = {"title": title, "agentId": str(agent_id), "metadata": []}
        request = ChatRequest("POST", "/api/Chat/CreateConversation", json=body)
        created: Conversation = await self._json(request, _is_conversation)
        return created

    async def attach(self, conversation_id: "str | UUID", file: Any, filename: str | None) -> None:
        name = filename or PurePath(str(getattr(file, "name", ""))).name
        if not name:
            raise ValueError("Give the file a filename.")
        if hasattr(file, "seekable") and file.seekable():
            file.seek(0)
        kind = guess_type(name)[0] or "application/octet-stream"
        path = f"/api/Chat/AddFileToConversation/{_in_path(conversation_id)}"
        await self._body(ChatRequest("POST", path, files={name: (name, file, kind)}))

    async def rate(self, conversation_id: "str | UUID", message_id: "str | UUID", feedback: Feedback) -> None:
        if feedback not in ("Like", "Dislike"):
            raise ValueError('Feedback is "Like" or "Dislike".')
        params = {"conversationId": str(conversation_id), "messageId": str(message_id), "feedback": feedback}
        await self._body(ChatRequest("POST", "/api/Chat/SubmitFeedback", params))

    async def _json(self, request: ChatRequest, is_known: Callable[[Any], bool]) -> Any:
        # An error must not show what people wrote, so the answer is in no frame of its traceback.
        answer = _parsed(await self._body(request), is_known)
        if answer is None:
            raise AIRiskInvalidResponse("AIRisk's answer is in an unknown format.")
        return answer

    async def _body(self, request: ChatRequest) -> bytes:
        reply = await self._call(request)
        try:
            await check_accepted(reply, self._seconds)
            body = await read_body(reply, MAX_JSON, self._seconds)
        finally:
            await reply.close()
        if body is None:
            raise AIRiskInvalidResponse("AIRisk's answer is too long.")
        return body


class Pages:
    """All of a user's conversations, page by page."""

    def __init__(self, rules: ChatRules) -> None:
        self._rules = rules
        self._seen: set[str] = set()
        self._skip = 0
        self._left = MAX_PAGES

    async def next(self) -> list[Conversation]:
        """Return the next conversations, none at the end: where a page is empty, or brings nothing new.

        :raises AIRiskInvalidResponse: there is no end.
        """
        if not self._left:
            raise AIRiskInvalidResponse("AIRisk's list of conversations does not end.")
        self._left -= 1
        page = await self._rules.conversations(self._skip)
        self._skip += len(page)
        # Whoever writes meanwhile moves conversations to the next page.
        fresh = {each["id"]: each for each in page if each["id"] not in self._seen}
        self._seen.update(fresh)
        return list(fresh.values())


def question(conversation_id: "str | UUID", text: str, patience: float) -> ChatRequest:
    """Return the request that an agent answers with a stream."""
    body = {"conversationID": str(conversation_id), "text": text}
    return ChatRequest("POST", "/api/Chat/AskAgent", json=body, headers=_STREAM_HEADERS, patience=patience)


def _in_path(identifier: "str | UUID") -> str:
    """Return an id as one part of a path.

    :raises AIRiskRefused: it would change the path, so nothing can have this id.
    """
    try:
        part = quote(str(identifier), safe="")
    except UnicodeEncodeError:
        part = ""
    if part in ("", ".", ".."):
        raise AIRiskRefused(404)
    return part


def _parsed(body: bytes, is_known: Callable[[Any], bool]) -> Any:
    """Return the JSON in a body, or ``None`` for anything else."""
    try:
        answer = json.loads(body.decode("utf-8-sig"), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    if _is_deep(answer):
        return None
    if re.search(_SURROGATE, body):
        answer = json.loads(whole_characters(json.dumps(answer, ensure_ascii=False)))
    return answer if is_known(answer) else None


def _is_deep(answer: Any) -> bool:
    """Tell whether lists and objects are nested deeper than any real answer."""
    level = [answer]
    for _depth in range(MAX_DEPTH):
        insides = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)]
        level = [child for inside in insides for child in inside]
    return bool(level)


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _are_records(records: Any, fields: Mapping[str, bool]) -> bool:
    """Tell whether these are objects with all of the fields, each of them a string.

    :param fields: whether each may be null.
    """
    return isinstance(records, list) and all(_is_record(each, fields) for each in records)


def _is_record(record: Any, fields: Mapping[str, bool]) -> bool:
    if not isinstance(record, dict):
        return False
    for name, may_be_null in fields.items():
        value = record.get(name, ())
        if not isinstance(value, str) and not (may_be_null and value is None):
            return False
    return all(_are_records(record.get(name) or [], {}) for name in _LISTS)


def _are_agents(answer: Any) -> bool:
    return _are_records(answer, _AGENT)


def _are_conversations(answer: Any) -> bool:
    return _are_records(answer, _CONVERSATION)


def _is_conversation(answer: Any) -> bool:
    return _is_record(answer, _CONVERSATION)


def _is_whole_conversation(answer: Any) -> bool:
    return _is_record(answer, _CONVERSATION) and _are_records(answer.get("messages"), _MESSAGE)
