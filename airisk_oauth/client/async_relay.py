"""An agent's answer for a browser, on an event loop. The rule is :func:`.relay.relay`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

from .chat_calls import Call, ChatRequest
from .relay import COMMENT, relay


async def arelay(call: Call, question: ChatRequest, patience: float, every: float) -> AsyncIterator[bytes]:
    """Yield what to send to the browser. Closing this, or cancelling its task, closes the call to AIRisk.

    :param every: seconds between two comments, while there is nothing else to send.
    """
    coming: asyncio.Queue[bytes] = asyncio.Queue(1)

    async def run() -> None:
        try:
            await relay(call, question, patience, coming.put)
        finally:
            # Where it is full, what is in it wakes the reader.
            with suppress(asyncio.QueueFull):
                coming.put_nowait(b"")

    # A task of its own, because what waits for AIRisk cannot be interrupted and then go on.
    relaying = asyncio.create_task(run())
    try:
        yield COMMENT
        while not (relaying.done() and coming.empty()):
            try:
                async with asyncio.timeout(every):
                    data = await coming.get()
            except TimeoutError:
                data = COMMENT
            if data:
                yield data
        await relaying
    finally:
        relaying.cancel()
        await asyncio.wait([relaying])
