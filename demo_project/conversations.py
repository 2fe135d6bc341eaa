"""Reads the answer to ``/api/GetConversations``.

AIRisk does not document its shape, so nothing is taken for granted: what is recognised is picked out, and an answer
that is not is left for the page to show as it came. Pure functions that raise for no input.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from django.utils.dateparse import parse_datetime
from django.utils.timezone import is_naive

# What a field may be called, letter case and underscores aside; the likeliest first.
_TITLE: Final = ("title", "name", "subject", "topic", "conversationtitle", "conversationname")
_MODEL: Final = ("model", "modelname", "languagemodel", "llm")
_UPDATED: Final = ("updated", "updatedat", "lastupdated", "modified", "modifiedat", "lastmodified", "lastmessageat")
_CREATED: Final = ("timestamp", "date", "created", "createdat", "createddate")
_LAST_MESSAGE: Final = ("lastmessage", "preview", "snippet", "summary", "message")
_STATUS: Final = ("status", "state")
#: What a nested object may call the text that stands for it.
_TEXT: Final = ("displayname", "name", "title", "text", "content", "id")

#: .NET writes a moment that was never set as the first one of its calendar.
_NEVER: Final = datetime(1970, 1, 2, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation as far as it was understood; what was not there is empty."""

    title: str
    model: str
    updated: datetime | None
    last_message: str
    status: str


def read_conversations(answer: object) -> list[Conversation] | None:
    """Return the conversations of an answer, or ``None`` where it has a shape that nobody here knows."""
    items = _the_list(answer)
    if items is None:
        return None
    conversations = [_conversation(item) for item in items]
    known = [conversation for conversation in conversations if conversation is not None]
    return known if len(known) == len(items) else None


def _the_list(answer: object, depth: int = 2) -> list[Any] | None:
    """A list, or the only one in an object around it."""
    if isinstance(answer, list):
        return answer
    if not isinstance(answer, dict) or depth == 0:
        return None
    inside = [found for value in answer.values() if (found := _the_list(value, depth - 1)) is not None]
    return inside[0] if len(inside) == 1 else None


def _conversation(item: object) -> Conversation | None:
    if not isinstance(item, dict):
        return None
    fields = {str(key).replace("_", "").lower(): value for key, value in item.items()}
    if not fields.keys() & {*_TITLE, *_LAST_MESSAGE}:
        return None
    return Conversation(
        title=_text(fields, _TITLE),
        model=_text(fields, _MODEL),
        updated=_moment(_text(fields, (*_UPDATED, *_CREATED))),
        last_message=_text(fields, _LAST_MESSAGE),
        status=_text(fields, _STATUS),
    )


def _text(fields: dict[str, Any], names: Iterable[str]) -> str:
    for name in names:
        value = fields.get(name)
        if isinstance(value, dict):
            inner = {str(key).replace("_", "").lower(): text for key, text in value.items()}
            value = next((inner[key] for key in _TEXT if isinstance(inner.get(key), str)), None)
        if isinstance(value, str | int | float) and not isinstance(value, bool) and str(value).strip():
            # JSON can carry half of a surrogate pair, which no page can.
            return str(value).strip().encode(errors="replace").decode()
    return ""


def _moment(text: str) -> datetime | None:
    try:
        moment = parse_datetime(text)
        if moment is None:
            return None
        moment = moment.replace(tzinfo=UTC) if is_naive(moment) else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return moment if moment > _NEVER else None
