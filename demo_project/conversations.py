"""Reads the answer to ``/api/GetConversations``.

AIRisk does not document its form, so this picks out the fields that it recognizes; the page shows any other answer as
it is. These are pure functions that never raise, whatever the input.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from django.utils.dateparse import parse_datetime
from django.utils.timezone import is_naive

# Possible names of each field, without letter case and underscores; the most likely first.
_TITLE: Final = ("title", "name", "subject", "topic", "conversationtitle", "conversationname")
_MODEL: Final = ("model", "modelname", "languagemodel", "llm")
_UPDATED: Final = ("updated", "updatedat", "lastupdated", "modified", "modifiedat", "lastmodified", "lastmessageat")
_CREATED: Final = ("timestamp", "date", "created", "createdat", "createddate")
_LAST_MESSAGE: Final = ("lastmessage", "preview", "snippet", "summary", "message")
_STATUS: Final = ("status", "state")
#: Possible names of the field that contains the text of a nested object.
_TEXT: Final = ("displayname", "name", "title", "text", "content", "id")

#: .NET writes a time that was never set as the first one in its calendar, so earlier times mean none.
_NEVER: Final = datetime(1970, 1, 2, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Conversation:
    """The recognized fields of a conversation; those that are missing are empty."""

    title: str
    model: str
    updated: datetime | None
    last_message: str
    status: str


def read_conversations(answer: object) -> list[Conversation] | None:
    """Return the conversations in an answer, or ``None`` if its form is not recognized."""
    items = _find_list(answer)
    if items is None:
        return None
    conversations = [_conversation(item) for item in items]
    known = [conversation for conversation in conversations if conversation is not None]
    return known if len(known) == len(items) else None


def _find_list(answer: object, depth: int = 2) -> list[Any] | None:
    """Return the answer if it is a list, or the only list in it if it is an object."""
    if isinstance(answer, list):
        return answer
    if not isinstance(answer, dict) or depth == 0:
        return None
    inside = [found for value in answer.values() if (found := _find_list(value, depth - 1)) is not None]
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
        updated=_parse_time(_text(fields, (*_UPDATED, *_CREATED))),
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
            # JSON can contain half of a surrogate pair, which cannot be encoded in UTF-8.
            return str(value).strip().encode(errors="replace").decode()
    return ""


def _parse_time(text: str) -> datetime | None:
    try:
        time = parse_datetime(text)
        if time is None:
            return None
        time = time.replace(tzinfo=UTC) if is_naive(time) else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return time if time > _NEVER else None
