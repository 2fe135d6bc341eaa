"""What AIRisk's chat API answers, as its public client knows it. Other fields are kept as they come.

AIRisk documents none of this. The fields without ``NotRequired`` are checked to be there; the others are not.
"""

from typing import Literal, NotRequired, TypeAlias, TypedDict

#: How an answer ended: whole, cut off by AIRisk, or not at all.
AnswerStatus: TypeAlias = Literal["completed", "incomplete", "failed"]
Feedback: TypeAlias = Literal["Like", "Dislike"]


class Suggestion(TypedDict, total=False):
    """Something to begin with, which an agent suggests."""

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
    """A source of an answer, which refers to it by a mark such as ``【4:0†policy.pdf】``."""

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
    """A conversation. ``messages`` is there if the conversation was asked for by its id."""

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
