"""The stream in which AIRisk answers a question, in either of its two formats. No I/O.

2025: server-sent events, like those of OpenAI's Assistants. 2026: one JSON object per line, and ``[DONE]`` at the end.
Each line shows which format it belongs to.
"""

import json
import re
from typing import Any, Final

from ..exceptions import AIRiskError, AIRiskInvalidResponse, AIRiskUnavailable
from .chat_types import AnswerStatus

#: In bytes.
MAX_LINE: Final = 1024 * 1024
#: In bytes, of one answer.
MAX_STREAM: Final = 32 * 1024 * 1024
#: In characters, of one answer.
MAX_TEXT: Final = 4 * 1024 * 1024

_TEXT: Final = 21
#: By ``UpdateKind``: action required (which only AIRisk's client can take), completed, incomplete, failed, error.
_KINDS: Final[dict[int, AnswerStatus]] = {5: "incomplete", 6: "completed", 7: "incomplete", 8: "failed", 24: "failed"}
_DELTA: Final = "thread.message.delta"
_EVENTS: Final[dict[str, AnswerStatus]] = {
    "thread.message.incomplete": "incomplete",
    "thread.run.requires_action": "incomplete",
    "thread.run.incomplete": "incomplete",
    "thread.run.completed": "completed",
    "thread.run.cancelled": "failed",
    "thread.run.expired": "failed",
    "thread.run.failed": "failed",
    "error": "failed",
}
_DONE: Final = "[DONE]"
_DECODER: Final = json.JSONDecoder()
_BOM: Final = "\ufeff"
_UNKNOWN: Final = "AIRisk's answer is in an unknown format."
_TOO_LONG: Final = "AIRisk's answer is longer than any real one."


class AnswerReader:
    """Reads an answer from the bytes of its stream, wherever they are split.

    :ivar status: how the answer ended; ``None`` until then.
    :ivar is_over: whether the answer has ended, or cannot be read any further.
    :ivar failure: the error to raise after the pieces that were read before it.
    """

    def __init__(self) -> None:
        self.status: AnswerStatus | None = None
        self.is_over = False
        self.failure: AIRiskError | None = None
        self._received = 0
        self._length = 0
        self._is_first = True
        self._after_cr = False
        self._rest: list[bytes] = []
        self._rest_length = 0
        self._event = ""
        self._data: list[str] = []
        self._data_length = 0
        self._half = ""

    def feed(self, data: bytes) -> list[str]:
        """Return the pieces of text that these bytes complete. No bytes: AIRisk has closed the connection."""
        pieces: list[str] = []
        try:
            if data:
                self._read(data, pieces)
            else:
                self._end(pieces)
        except (ValueError, RecursionError):
            self.fail(AIRiskInvalidResponse(_UNKNOWN))
        if self.is_over and self._half:
            pieces.append("\ufffd")
            self._half = ""
        return pieces

    def _read(self, data: bytes, pieces: list[str]) -> None:
        if self._after_cr and data.startswith(b"\n"):
            # The second half of a line break.
            data = data[1:]
        self._after_cr = data.endswith(b"\r")
        self._received += len(data)
        first, *others = re.split(rb"\r\n|\n|\r", data) if b"\r" in data else data.split(b"\n")
        self._rest.append(first)
        self._rest_length += len(first)
        if self._rest_length > MAX_LINE or self._received > MAX_STREAM:
            self.fail(AIRiskInvalidResponse(_TOO_LONG))
        elif others:
            lines = [b"".join(self._rest), *others]
            self._rest, self._rest_length = [lines[-1]], len(lines[-1])
            for line in lines[:-1]:
                self._take_line(line, pieces)
                if self.is_over:
                    break

    def _end(self, pieces: list[str]) -> None:
        self.fail(AIRiskUnavailable("AIRisk's answer broke off."))
        line = b"".join(self._rest)
        try:
            self._take_line(line, pieces)
            self._take_event(pieces)
        except (ValueError, RecursionError):
            if not _could_go_on(line):
                raise
        if self.status is not None:
            self.failure = None

    def fail(self, failure: AIRiskError) -> None:
        """Stop reading. The error is raised after the pieces that were read before it."""
        self.failure, self.is_over = failure, True

    def _take_line(self, raw: bytes, pieces: list[str]) -> None:
        line = raw.decode()
        if self._is_first:
            self._is_first, line = False, line.removeprefix(_BOM)
        if line.startswith("{"):
            self._take_update(_parse(line), pieces)
        elif line == _DONE:
            self._finish()
        elif line:
            self._take_field(line)
        else:
            self._take_event(pieces)

    def _take_field(self, line: str) -> None:
        """Read one line of an event (HTML standard, 9.2.6)."""
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
            self._data_length += len(value)
            if self._data_length > MAX_LINE:
                self.fail(AIRiskInvalidResponse(_TOO_LONG))
        elif name == "event":
            self._event = value
        elif name not in ("", "id", "retry"):
            # The standard ignores unknown fields, but this is more likely a line of a web page.
            raise ValueError(name)

    def _take_event(self, pieces: list[str]) -> None:
        event, data = self._event, "\n".join(self._data)
        self._event, self._data, self._data_length = "", [], 0
        if event == "done" or data == _DONE:
            self._finish()
        elif event in _EVENTS:
            self.status = _EVENTS[event]
        elif event == _DELTA:
            self._add(_delta_text(_parse(data)), pieces)
        elif data.startswith("{") and event in ("", "message"):
            self._take_update(_parse(data), pieces)

    def _take_update(self, update: dict[str, Any], pieces: list[str]) -> None:
        kind = update.get("UpdateKind")
        if type(kind) is not int:
            raise ValueError(kind)
        if kind == _TEXT:
            self._add(update.get("Text"), pieces)
        self.status = _KINDS.get(kind, self.status)

    def _add(self, text: object, pieces: list[str]) -> None:
        if text is None:
            return
        if not isinstance(text, str):
            raise ValueError(text)  # noqa: TRY004 - caught with all other wrong values
        piece = self._whole_characters(text)
        self._length += len(piece)
        if self._length > MAX_TEXT:
            self.fail(AIRiskInvalidResponse(_TOO_LONG))
        elif piece:
            pieces.append(piece)

    def _whole_characters(self, text: str) -> str:
        """Return text that can be encoded. JSON can write a character as two surrogates, split between two pieces."""
        text, self._half = self._half + text, ""
        if text.isascii():
            return text
        if "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return whole_characters(text)

    def _finish(self) -> None:
        self.is_over, self.failure = True, None
        self.status = self.status or "completed"


def _parse(text: str) -> Any:
    # Faster than json.loads(), which looks for white space on both sides.
    value, end = _DECODER.raw_decode(text)
    if text[end:].strip():
        raise ValueError
    return value


def whole_characters(text: str) -> str:
    """Return the text with pairs of surrogates joined, and single ones replaced."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _could_go_on(line: bytes) -> bool:
    """Tell whether a line that cannot be read may be the beginning of one that can."""
    begun = re.match(rb"\{|(data|event|id|retry):", line)
    return bool(begun) or any(name.startswith(line) for name in (b"data:", b"event:", b"id:", b"retry:", b"[DONE]"))


def _delta_text(event: Any) -> str:
    """Return the text in a 2025 event; other parts of its message, such as images, are left out."""
    try:
        parts = event["delta"]["content"] or ()
        values = [part["text"]["value"] for part in parts if part.get("text") is not None]
        return "".join(value for value in values if value is not None)
    except (LookupError, TypeError, AttributeError):
        raise ValueError from None
