"""The answers of AIRisk's chat API, as its public client knows them. Fields that are not listed here are kept.

AIRisk documents none of this. Fields without ``NotRequired`` are checked; the others are not.
"""

from typing import Literal, NotRequired, TypeAlias, TypedDict

#: How an answer ended: in full, cut off by AIRisk, or with an error.
AnswerStatus: TypeAlias = Literal["completed", "incomplete", "failed"]
Feedback: TypeAlias = Literal["Like", "Dislike"]


class Suggestion(TypedDict, total=False):
    """A first question that an agent suggests."""

    id: str
    botID: str
    greeting: str | None
    greetingDescription: str | None
    imageName: str | None


class Agent(TypedDict):
    """An agent that the user may ask."""

    id: str
    name: str
    description: NotRequired[str | None]
    botSuggestion: NotRequired[list[Suggestion] | None]


class Citation(TypedDict, total=False):
    """A source that an answer refers to, with a mark such as ``【4:0†policy.pdf】`` in its text."""

    id: str
    title: str | None
    filepath: str | None
    url: str | None
    content: str | None


class Message(TypedDict):
    """One message of a conversation. ``messageType`` is ``"User"``, ``"AI"`` or ``"System"``."""

    id: str
    messageType: str
    text: str | None
    feedback: NotRequired[str | None]
    fileName: NotRequired[str | None]
    fileURL: NotRequired[str | None]
    citations: NotRequired[list[Citation] | None]


class Conversation(TypedDict):
    """A conversation. Only a conversation that was requested by its id has ``messages``."""

    id: str
    title: str | None
    botID: NotRequired[str]
    userID: NotRequired[str]
    companyId: NotRequired[str]
    threadID: NotRequired[str | None]
    lastUpdated: NotRequired[str]
    createdDate: NotRequired[str]
    hasFlag: NotRequired[bool]
    hasMore: NotRequired[bool]
    isSaved: NotRequired[bool]
    messages: NotRequired[list[Message]]
