"""AIRisk's chat API for asynchronous code (extra ``async``). The rules are in :mod:`.chat_rules`."""

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import IO, TYPE_CHECKING, Any, Final, Self

from ..exceptions import AIRiskUnavailable
from ..wire.async_environment import httpx2
from ..wire.async_limits import TimeLimit
from ..wire.failures import CallFailure
from .chat_answers import FIRST_TEXT_TIMEOUT, AnswerSoFar
from .chat_calls import ChatRequest, Reply
from .chat_rules import ChatRules, Pages, question

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

    from .call_log import Unlogged
    from .chat_types import Agent, Conversation, Feedback

_NO_ANSWER: Final = (OSError, httpx2.TransportError, httpx2.StreamError)


class AsyncChat:
    """A user's agents and conversations, as ``AsyncAIRiskClient.chat``. The asynchronous side of :class:`.Chat`.

    :param client: an ``AsyncAIRiskClient``.
    :param timeouts: seconds to connect, and to read.
    """

    def __init__(self, client: Any, timeouts: tuple[float, float]) -> None:
        self._call = AsyncCalls(client, timeouts)
        self._rules = ChatRules(self._call, timeouts[1])

    async def agents(self) -> "list[Agent]":
        """As :meth:`.Chat.agents`."""
        return await self._rules.agents()

    async def conversations(self) -> "AsyncIterator[Conversation]":
        """As :meth:`.Chat.conversations`. Do not await this; use ``async for``."""
        pages = Pages(self._rules)
        while page := await pages.next():
            for conversation in page:
                yield conversation

    async def conversation(self, conversation_id: "str | UUID") -> "Conversation":
        """As :meth:`.Chat.conversation`."""
        return await self._rules.conversation(conversation_id)

    async def create_conversation(self, agent_id: "str | UUID", title: str) -> "Conversation":
        """As :meth:`.Chat.create_conversation`."""
        return await self._rules.create_conversation(agent_id, title)

    def ask(
        self, conversation_id: "str | UUID", text: str, *, first_text_timeout: float = FIRST_TEXT_TIMEOUT
    ) -> "AsyncAnswer":
        """As :meth:`.Chat.ask`. Do not await this; use ``async with``."""
        return AsyncAnswer(self._call, question(conversation_id, text, first_text_timeout), first_text_timeout)

    async def attach(
        self, conversation_id: "str | UUID", file: IO[bytes] | bytes | Any, filename: str | None = None
    ) -> None:
        """As :meth:`.Chat.attach`, but the file is read piece by piece while it is sent."""
        await self._rules.attach(conversation_id, file, filename)

    async def rate(self, conversation_id: "str | UUID", message_id: "str | UUID", feedback: "Feedback") -> None:
        """As :meth:`.Chat.rate`."""
        await self._rules.rate(conversation_id, message_id, feedback)


class AsyncAnswer(AnswerSoFar, AbstractAsyncContextManager["AsyncAnswer"]):
    """The asynchronous side of :class:`.Answer`: ``async with`` and ``async for``."""

    async def __aenter__(self) -> Self:
        await self._begin()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        if await self._is_over():
            raise StopAsyncIteration
        return self._take()

    async def aclose(self) -> None:
        """As :meth:`.Answer.close`."""
        await self._end()


class AsyncCalls:
    """Makes calls without blocking the event loop."""

    def __init__(self, client: Any, timeouts: tuple[float, float]) -> None:
        self._client = client
        self._timeouts = timeouts

    async def __call__(self, request: ChatRequest) -> Reply:
        connect, read = self._timeouts
        built = self._client.build_request(
            request.method,
            request.path,
            params=request.params,
            json=request.json,
            files=request.files,
            headers=request.headers,
            timeout=httpx2.Timeout(request.patience or read, connect=connect),
        )
        call = self._client.call_of(built).__enter__()
        try:
            response = await self._client.send(built, stream=True, follow_redirects=False)
        except BaseException as error:
            call.close(error)
            raise
        return _AsyncReply(response, call)


class _AsyncReply:
    """A reply whose body is read without blocking the event loop.

    :param call: kept open until the reply is closed.
    """

    def __init__(self, response: httpx2.Response, call: "Unlogged") -> None:
        self._response, self._call = response, call
        # Not response.aiter_raw(), which would add a layer for each piece.
        self._parts: Any = aiter(response.stream)  # type: ignore[arg-type]
        self._limit = TimeLimit()
        self.status, self.headers = response.status_code, response.headers
        self.token = response.request.headers.get("Authorization", "").removeprefix("Bearer ")

    async def read(self, ends: float) -> bytes:
        failure = CallFailure(*_NO_ANSWER, hidden=(asyncio.CancelledError,))
        with failure, self._limit.until(ends):
            return await anext(self._parts, b"")
        self._call.note_failure(AIRiskUnavailable)
        await self.close()
        raise AIRiskUnavailable(f"AIRisk's answer broke off ({failure.cause}).")

    async def close(self) -> None:
        self._limit.stop()
        await self._parts.aclose()
        await self._response.aclose()
        self._call.close()
