"""The two formats in which AIRisk has streamed answers.

Source: both generations of AIRisk's public client; AIRisk documents neither.
"""

import json
import time
from collections.abc import Iterator
from typing import Final

#: Kinds of updates in the format of 2026.
_TEXT: Final = 21
_RUN_COMPLETED: Final = 6


def stream(pieces: Iterator[str], *, is_old: bool, first_after: float, breaks_off: bool) -> Iterator[bytes]:
    """Yield an answer as it is sent over the network.

    :param is_old: use server-sent events as in 2025, instead of lines of JSON as in 2026.
    :param first_after: seconds before the first piece.
    :param breaks_off: stop after two pieces, without the mark that ends a complete answer.
    """
    time.sleep(first_after)
    for number, piece in enumerate(pieces):
        if breaks_off and number == 2:
            return
        yield _event(piece) if is_old else _line({"UpdateKind": _TEXT, "Text": piece})
    if is_old:
        yield b"event: done\ndata: [DONE]\n\n"
    else:
        yield _line({"UpdateKind": _RUN_COMPLETED})
        yield b"[DONE]\n"


def _event(piece: str) -> bytes:
    """Return a server-sent event in the format of OpenAI's Assistants."""
    data = {"delta": {"content": [{"text": {"value": piece}}]}}
    return f"event: thread.message.delta\ndata: {json.dumps(data)}\n\n".encode()


def _line(update: dict[str, object]) -> bytes:
    return json.dumps(update).encode() + b"\n"
