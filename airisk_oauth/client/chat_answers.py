"""An agent's answer, as both clients read it: coroutines over ``call``."""

import time
from collections import deque
from typing import Final

from ..exceptions import AIRiskInvalidResponse, AIRiskUnavailable
from .chat_calls import Call, ChatRequest, Reply, Unpacker, check_accepted
from .chat_stream import AnswerReader
from .chat_types import AnswerStatus

#: Seconds to wait for text. An agent may think for more than half a minute before it writes any.
FIRST_TEXT_TIMEOUT: Final = 120.0
#: Seconds that AIRisk has to end the stream of a complete answer; it may be saving the answer.
_LINGER: Final = 1.0
#: Seconds for the body of a refusal.
_REFUSAL_TIMEOUT: Final = 10.0
#: Seconds that are left at least.
_LEAST: Final = 0.001


async def ask(call: Call, question: ChatRequest, patience: float) -> "OpenAnswer":
    """Send a question, and return the answer before its first text.

    :param patience: seconds to wait for the first text, counted from now, and then for each further piece.
    :raises AIRiskError: as any call of the API does, and for every status that is not a success.
    """
    began = time.monotonic()
    reply = await call(question)
    try:
        await check_accepted(reply, min(patience, _REFUSAL_TIMEOUT))
        return OpenAnswer(reply, patience, patience - (time.monotonic() - began))
    except BaseException:
        await reply.close()
        raise


class OpenAnswer:
    """An answer whose stream has begun.

    :param patience: seconds to wait for each further piece of text.
    :param left: seconds to wait for the first one.
    """

    def __init__(self, reply: Reply, patience: float, left: float) -> None:
        self._reply = reply
        self._unpack = Unpacker(reply)
        self._reader = AnswerReader()
        self._patience = patience
        self._left = max(left, _LEAST)

    @property
    def status(self) -> AnswerStatus | None:
        """How the answer ended; ``None`` until then, and if it broke off."""
        return self._reader.status if self._reader.is_over else None

    async def pieces(self) -> list[str]:
        """Return the next pieces of text, or none at the end of the answer.

        :raises AIRiskUnavailable: no text came in time, or the stream broke off.
        :raises AIRiskInvalidResponse: the stream is in an unknown format, or too long.
        """
        ends = time.monotonic() + self._left
        self._left = self._patience
        while not self._reader.is_over:
            pieces = self._read(await self._next(ends))
            if pieces:
                return pieces
            if not self._reader.is_over and time.monotonic() > ends:
                self._reader.fail(AIRiskUnavailable("AIRisk sent no text in time."))
        if self._reader.failure is not None:
            raise self._reader.failure
        return []

    async def finish(self) -> None:
        """Let AIRisk end the stream of an answer that is complete, for a second, and close the connection."""
        ends = time.monotonic() + _LINGER
        try:
            while await self._reply.read(ends) and time.monotonic() < ends:
                pass
        except AIRiskUnavailable:
            pass
        await self._reply.close()

    async def close(self) -> None:
        """Close the connection: the only way to stop an answer."""
        await self._reply.close()

    async def _next(self, ends: float) -> bytes:
        try:
            return await self._reply.read(ends)
        except AIRiskUnavailable:
            if self._reader.status is None:
                raise
        # Only the mark at the end is missing.
        return b""

    def _read(self, data: bytes) -> list[str]:
        if not data:
            return self._reader.feed(data)
        pieces: list[str] = []
        try:
            for part in self._unpack(data):
                pieces += self._reader.feed(part)
        except AIRiskInvalidResponse as error:
            self._reader.fail(error)
        return pieces


class AnswerSoFar:
    """What the answers of both clients have in common: everything except how to iterate over them."""

    def __init__(self, call: Call, question: ChatRequest, patience: float) -> None:
        self._call, self._question, self._patience = call, question, patience
        self._open: OpenAnswer | None = None
        self._waiting: deque[str] = deque()
        self._taken: list[str] = []
        self._is_complete = False
        self._is_closed = False

    @property
    def text(self) -> str:
        """The text so far: all pieces that the iteration has returned."""
        return "".join(self._taken)

    @property
    def status(self) -> AnswerStatus | None:
        """``"completed"``, ``"incomplete"`` or ``"failed"`` at the end of the answer, and ``None`` until then."""
        return self._open.status if self._open is not None and self._is_complete else None

    async def _begin(self) -> OpenAnswer:
        if self._is_closed:
            raise RuntimeError("This answer is closed. Ask again for another one.")
        if self._open is None:
            self._open = await ask(self._call, self._question, self._patience)
        return self._open

    async def _is_over(self) -> bool:
        """Wait until there is another piece, or none any more, and tell whether there is none."""
        if not self._waiting and not self._is_complete:
            try:
                answer = await self._begin()
                self._waiting.extend(await answer.pieces())
                if not self._waiting:
                    self._is_complete = True
                    await answer.finish()
            except BaseException:
                await self._end()
                raise
        return self._is_complete

    def _take(self) -> str:
        piece = self._waiting.popleft()
        self._taken.append(piece)
        return piece

    async def _end(self) -> None:
        self._is_closed = True
        self._waiting.clear()
        if self._open is not None:
            await self._open.close()
