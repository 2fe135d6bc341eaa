"""Agents and conversations as AIRisk's chat API has them: what they look like, and what becomes of them.

Source: the calls of AIRisk's public client; AIRisk does not document this API. What the client does not show, such as
the status for a conversation that is not there, is made up.
"""

import hashlib
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NotRequired, TypedDict

#: The agents that everybody has: name, description, and what they suggest to begin with.
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
    """What an answer refers to by a mark such as `【4:0†policy.pdf】`."""

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
    """One entry of the answer to `GetConversations`; that of `GetConversation` has its messages, too."""

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
class _Kept:
    id: str
    title: str
    agent_id: str
    created: float
    updated: float
    messages: list[Message] = field(default_factory=list)


def agents() -> list[dict[str, Any]]:
    """The agents in the form of `ListAgents`."""
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
    """The conversations of one person. All methods may be called from any thread; times are Unix seconds."""

    def __init__(self, userid: str, now: float) -> None:
        self.userid = userid
        self._lock = threading.Lock()
        self._kept: dict[str, _Kept] = {}
        dice = hashlib.sha256(userid.encode()).digest()
        for index in reversed(range(3 + dice[0] % 4)):
            title, answer = _SUBJECTS[(dice[0] + 2 * index) % len(_SUBJECTS)]
            agent_id = _id("agent", _AGENTS[dice[index + 1] % len(_AGENTS)][0])
            written = now - (index + 1) * 7000 - dice[index]
            kept = _Kept(_id("conversation", userid, str(index)), title, agent_id, written, written)
            kept.messages = [
                _message("User", title, _id("asked", userid, str(index))),
                _message("AI", answer, _id("answered", userid, str(index))),
            ]
            self._kept[kept.id] = kept

    def listed(self, moment: Callable[[float], str]) -> list[Conversation]:
        """All conversations, the one that was changed last first; `moment` writes their times."""
        with self._lock:
            return [self._shown(kept, moment) for kept in reversed(self._kept.values())]

    def find(self, conversation_id: str, moment: Callable[[float], str]) -> Conversation | None:
        """A conversation with its messages."""
        with self._lock:
            kept = self._kept.get(conversation_id)
            return None if kept is None else {**self._shown(kept, moment), "messages": list(kept.messages)}

    def create(self, title: str, agent_id: str, now: float) -> str:
        """The id of a new conversation, without messages."""
        kept = _Kept(str(uuid.uuid4()), title, agent_id, now, now)
        with self._lock:
            self._kept[kept.id] = kept
        return kept.id

    def ask(self, conversation_id: str, text: str, now: float) -> Iterator[str]:
        """The pieces of an answer; the conversation keeps as much of it as was taken."""
        self._add(conversation_id, _message("User", text), now)
        return self._answer(conversation_id, text, now)

    def attach(self, conversation_id: str, name: str, now: float) -> None:
        """Note a file that was added to a conversation; nothing is kept of its content."""
        message = _message("User", "")
        message["fileName"] = name
        self._add(conversation_id, message, now)

    def rate(self, conversation_id: str, message_id: str, feedback: str) -> bool:
        """Note what somebody thinks of a message, and tell whether there is one."""
        with self._lock:
            rated = [each for each in self._kept[conversation_id].messages if each["id"] == message_id]
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
            # Out and in again, so that the last one is the one that was changed last.
            kept = self._kept.pop(conversation_id)
            kept.messages.append(message)
            kept.updated = now
            self._kept[conversation_id] = kept

    def _shown(self, kept: _Kept, moment: Callable[[float], str]) -> Conversation:
        return {
            "id": kept.id,
            "title": kept.title,
            "botID": kept.agent_id,
            "userID": self.userid,
            "companyId": _id("company"),
            "threadID": f"thread_{uuid.UUID(kept.id).hex}",
            "lastUpdated": moment(kept.updated),
            "createdDate": moment(kept.created),
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
    """The same for the same parts, so that an address outlives a reload of the server."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, "/".join(parts)))
