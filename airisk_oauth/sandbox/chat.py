"""The agents and conversations of AIRisk's chat API.

Source: the calls of AIRisk's public client, because AIRisk does not document this API. What the client does not show is
made up, such as the status for a conversation that does not exist.
"""

import hashlib
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NotRequired, TypedDict

#: The agents that every user has: name, description, and a suggested first question.
_AGENTS: Final = (
    ("Contract reader", "Reads contracts and names what is unusual in them.", "What does section 9 say?"),
    ("Policy helper", "Answers questions about your company's policies.", "May I work from abroad?"),
    ("Translator", None, "Translate this into French."),
)
_SUBJECTS: Final = (
    ("Liability clause in the supplier contract", "The cap in section 9.2 excludes gross negligence, as you asked."),
    ("Summary of the works council meeting", "Three decisions, two open points, and names replaced by roles."),
    ("Reply to the complaint of 3 March", "I kept the tone factual and left out the medical detail."),
    ("Risk classes under the EU AI Act", "The screening tool falls under Annex III, point 4: high risk."),
    ("Python script for the quarterly report", "It now reads the column by name, so a moved column does no harm."),
    ("Translation of the safety data sheet", "Section 8 is translated; the limit values are unchanged."),
    ("Interview questions for the data team", "I removed the two questions that touch on family plans."),
    ("Draft of the privacy notice", "Retention is now given for each purpose, not once for all."),
    ("Why did the forecast miss in May?", "Mostly the holiday week, which the model had not seen before."),
)
_ANSWER: Final = (
    "The draft was read against your acceptable-use policy【4:0†policy.pdf】. ",
    "Two passages name a natural person and were masked before the model saw them. ",
    "No other finding.",
)


class Citation(TypedDict):
    """A source that an answer refers to by a mark such as `【4:0†policy.pdf】`."""

    id: str
    title: str
    filepath: str
    url: str | None
    content: str


_CITATION: Final[Citation] = {
    "id": "4:0",
    "title": "policy.pdf",
    "filepath": "policies/policy.pdf",
    "url": None,
    "content": "Names of natural persons are masked.",
}


class Message(TypedDict):
    """One message of a conversation."""

    id: str
    messageType: str
    text: str
    feedback: str | None
    fileName: str | None
    fileURL: str | None
    citations: list[Citation]


class Conversation(TypedDict):
    """One entry in the answer to `GetConversations`; the answer to `GetConversation` also has messages."""

    id: str
    title: str
    botID: str
    userID: str
    companyId: str
    threadID: str
    lastUpdated: str
    createdDate: str
    hasFlag: bool
    hasMore: bool
    isSaved: bool
    messages: NotRequired[list[Message]]


@dataclass
class _StoredConversation:
    id: str
    title: str
    agent_id: str
    created: float
    updated: float
    messages: list[Message] = field(default_factory=list)


def agents() -> list[dict[str, Any]]:
    """Return the agents in the form of `ListAgents`."""
    return [
        {
            "id": _id("agent", name),
            "name": name,
            "description": description,
            "botSuggestion": [
                {
                    "id": _id("suggestion", name),
                    "botID": _id("agent", name),
                    "greeting": greeting,
                    "greetingDescription": None,
                    "imageName": None,
                }
            ],
        }
        for name, description, greeting in _AGENTS
    ]


class Chats:
    """The conversations of one user. All methods are thread-safe; times are Unix timestamps."""

    def __init__(self, userid: str, now: float) -> None:
        self.userid = userid
        self._lock = threading.Lock()
        self._stored: dict[str, _StoredConversation] = {}
        digest = hashlib.sha256(userid.encode()).digest()
        for index in reversed(range(3 + digest[0] % 4)):
            title, answer = _SUBJECTS[(digest[0] + 2 * index) % len(_SUBJECTS)]
            agent_id = _id("agent", _AGENTS[digest[index + 1] % len(_AGENTS)][0])
            written = now - (index + 1) * 7000 - digest[index]
            stored = _StoredConversation(_id("conversation", userid, str(index)), title, agent_id, written, written)
            stored.messages = [
                _message("User", title, _id("asked", userid, str(index))),
                _message("AI", answer, _id("answered", userid, str(index))),
            ]
            self._stored[stored.id] = stored

    def conversations(self, format_time: Callable[[float], str]) -> list[Conversation]:
        """Return all conversations, most recently changed first, with their times as `format_time` writes them."""
        with self._lock:
            return [self._as_json(stored, format_time) for stored in reversed(self._stored.values())]

    def find(self, conversation_id: str, format_time: Callable[[float], str]) -> Conversation | None:
        """Return a conversation with its messages, or None if there is none with this id."""
        with self._lock:
            stored = self._stored.get(conversation_id)
            return None if stored is None else {**self._as_json(stored, format_time), "messages": [*stored.messages]}

    def create(self, title: str, agent_id: str, now: float) -> str:
        """Start a conversation without messages, and return its id."""
        stored = _StoredConversation(str(uuid.uuid4()), title, agent_id, now, now)
        with self._lock:
            self._stored[stored.id] = stored
        return stored.id

    def ask(self, conversation_id: str, text: str, now: float) -> Iterator[str]:
        """Yield the pieces of an answer; the pieces that were yielded become part of the conversation."""
        self._add(conversation_id, _message("User", text), now)
        return self._answer(conversation_id, text, now)

    def attach(self, conversation_id: str, name: str, now: float) -> None:
        """Record that a file was added to a conversation, without its content."""
        message = _message("User", "")
        message["fileName"] = name
        self._add(conversation_id, message, now)

    def rate(self, conversation_id: str, message_id: str, feedback: str) -> bool:
        """Record the rating of a message; false if there is no such message."""
        with self._lock:
            rated = [each for each in self._stored[conversation_id].messages if each["id"] == message_id]
            for message in rated:
                message["feedback"] = feedback
            return bool(rated)

    def _answer(self, conversation_id: str, text: str, now: float) -> Iterator[str]:
        message = _message("AI", "")
        message["citations"] = [_CITATION]
        self._add(conversation_id, message, now)
        for piece in (f"You asked: {text} ", *_ANSWER):
            message["text"] += piece
            yield piece

    def _add(self, conversation_id: str, message: Message, now: float) -> None:
        with self._lock:
            # Removed and added again, so that the dictionary stays in the order of changes.
            stored = self._stored.pop(conversation_id)
            stored.messages.append(message)
            stored.updated = now
            self._stored[conversation_id] = stored

    def _as_json(self, stored: _StoredConversation, format_time: Callable[[float], str]) -> Conversation:
        return {
            "id": stored.id,
            "title": stored.title,
            "botID": stored.agent_id,
            "userID": self.userid,
            "companyId": _id("company"),
            "threadID": f"thread_{uuid.UUID(stored.id).hex}",
            "lastUpdated": format_time(stored.updated),
            "createdDate": format_time(stored.created),
            "hasFlag": False,
            "hasMore": False,
            "isSaved": False,
        }


def _message(kind: str, text: str, message_id: str = "") -> Message:
    return {
        "id": message_id or str(uuid.uuid4()),
        "messageType": kind,
        "text": text,
        "feedback": None,
        "fileName": None,
        "fileURL": None,
        "citations": [],
    }


def _id(*parts: str) -> str:
    """Return the same id for the same parts, so that URLs stay valid when the server reloads."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, "/".join(parts)))
