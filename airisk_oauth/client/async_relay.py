"""Relays an agent's answer to a browser, on an event loop. The rule is :func:`.relay.relay`."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from .chat_calls import Call, ChatRequest
from .relay import COMMENT, relay


async def arelay(call: Call, question: ChatRequest, patience: float, every: float) -> AsyncIterator[bytes]:
    """Yield what to send to the browser. Closing the generator, or cancelling its task, closes the call to AIRisk.

    :param every: seconds between two comments while there is nothing else to send.
    """
    outbox = _Outbox(every)
    # A separate task, because reading from AIRisk cannot be interrupted for a comment and then continued.
    relaying = asyncio.create_task(relay(call, question, patience, outbox.put))
    relaying.add_done_callback(outbox.end)
    try:
        yield COMMENT
        while data := await outbox.get():
            yield data
        await relaying
    finally:
        outbox.end()
        relaying.cancel()
        await asyncio.wait([relaying])


class _Outbox:
    """Passes on one part at a time, and comments in between. There is one timer for the whole answer."""

    def __init__(self, every: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._every = every
        self._parts: deque[bytes] = deque()
        self._is_over = False
        self._added: asyncio.Future[None] | None = None
        self._taken: asyncio.Future[None] | None = None
        self._due = self._loop.time() + every
        self._timer = self._loop.call_at(self._due, self._comment)

    async def put(self, data: bytes) -> None:
        """Add a part; wait until the previous one has been sent."""
        while self._parts:
            self._taken = self._loop.create_future()
            await self._taken
        self._parts.append(data)
        _set(self._added)

    async def get(self) -> bytes:
        """Return the next part, or no bytes at the end."""
        while not self._parts and not self._is_over:
            self._added = self._loop.create_future()
            await self._added
        self._due = self._loop.time() + self._every
        part = self._parts.popleft() if self._parts else b""
        _set(self._taken)
        return part

    def end(self, _relaying: object = None) -> None:
        self._is_over = True
        self._timer.cancel()
        _set(self._added)

    def _comment(self) -> None:
        now = self._loop.time()
        if now >= self._due:
            self._due = now + self._every
            # A part that is waiting means that the browser is slow.
            if not self._parts:
                self._parts.append(COMMENT)
                _set(self._added)
        self._timer = self._loop.call_at(self._due, self._comment)


def _set(future: "asyncio.Future[None] | None") -> None:
    if future is not None and not future.done():
        future.set_result(None)
