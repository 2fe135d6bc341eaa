"""Relays an agent's answer to a browser, as server-sent events (HTML standard, 9.2).

The rule is a coroutine over ``emit``, which sends bytes to the browser. On a synchronous server, a generator runs it up
to each thing it emits. It also emits comments, because such a server notices only by writing that a browser has left.
"""

import json
import time
import types
from collections.abc import Awaitable, Callable, Generator, Iterator
from concurrent.futures import wait
from contextvars import copy_context
from functools import partial
from json.encoder import encode_basestring_ascii
from typing import Any, Final

import requests
from urllib3.exceptions import HTTPError

from ..exceptions import AIRiskError, AIRiskUnavailable, ConnectionRequired
from ..wire import sockets
from ..wire.failures import CallFailure
from ..wire.limits import CallTimeout
from .call_log import Unlogged, call_of
from .chat import BlockingReply, prepare
from .chat_answers import ask
from .chat_calls import Call, ChatRequest, Reply

COMMENT: Final = b":\n\n"

Emit = Callable[[bytes], Awaitable[None]]


async def relay(call: Call, question: ChatRequest, patience: float, emit: Emit) -> None:
    """Ask, and emit the text of the answer, then its status or an error.

    :param patience: seconds to wait for the first text, and then for each further piece.
    """
    try:
        answer = await ask(call, question, patience)
        try:
            while pieces := await answer.pieces():
                for piece in pieces:
                    await emit(_text_event(piece))
            await emit(_event("done", status=answer.status))
            await answer.finish()
        finally:
            await answer.close()
    except ConnectionRequired as error:
        await emit(_event("error", detail=str(error), connect_url=error.connect_url))
    except AIRiskError as error:
        await emit(_event("error", detail=str(error)))
    except Exception:
        await emit(_event("error", detail="The answer could not be fetched."))
        raise


def _text_event(piece: str) -> bytes:
    # The same as with json.dumps(), several times faster.
    return f'event: text\ndata: {{"text": {encode_basestring_ascii(piece)}}}\n\n'.encode()


def _event(name: str, **data: object) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


@types.coroutine
def _hand_out(data: bytes) -> Generator[bytes, None, None]:
    yield data


class BlockingRelay:
    """Relays an answer on a synchronous server.

    ``requests`` cannot be interrupted while it waits for AIRisk's headers, so a thread of its own does that. That
    thread does not use the database. The body is read here.

    :param every: seconds between two comments while there is nothing else to send.
    """

    def __init__(self, session: Any, every: float) -> None:
        self._session = session
        self._every = every
        self._due = 0.0

    def __call__(self, question: ChatRequest, patience: float) -> Iterator[bytes]:
        """Yield what to send to the browser. Closing the generator closes the call to AIRisk."""
        rule = relay(self._call, question, patience, self._emit)
        try:
            yield COMMENT
            self._due = time.monotonic() + self._every
            while True:
                try:
                    data = rule.send(None)
                except StopIteration:
                    return
                yield data
        finally:
            rule.close()
            # This closes idle connections only, so the session can still be used.
            self._session.close()

    async def _emit(self, data: bytes) -> None:
        await _hand_out(data)
        self._due = time.monotonic() + self._every

    async def wait(self, is_ready: Callable[[float], bool], ends: float) -> None:
        """Wait until something is ready, and emit comments meanwhile.

        :param is_ready: waits at most this many seconds, and tells whether it is ready.
        :param ends: the time limit, on the monotonic clock.
        """
        while (now := time.monotonic()) < ends:
            if now >= self._due:
                await self._emit(COMMENT)
            elif is_ready(min(self._due, ends) - now):
                return

    async def _call(self, request: ChatRequest) -> Reply:
        session, connect = self._session, self._session.deployment.api_timeout[0]
        prepared, options = prepare(session, request)
        adapter = session.get_adapter(prepared.url)
        call = call_of(prepared).__enter__()

        async def send(signed: requests.PreparedRequest) -> requests.Response:
            timeout = CallTimeout(connect, request.patience)
            return await self._receive(timeout, partial(adapter.send, signed, timeout=timeout, **options))

        try:
            response = await session.auth.follow_up(await send(prepared), send)
        except BaseException as error:
            call.close(error)
            raise
        return _PolledReply(response, self, call)

    async def _receive(self, timeout: CallTimeout, send: Callable[[], requests.Response]) -> requests.Response:
        coming = sockets.run_in_thread(partial(copy_context().run, send))
        try:
            await self.wait(lambda seconds: bool(wait([coming], seconds).done), float("inf"))
        except BaseException:
            timeout.abandon()
            sockets.close_when_done(coming)
            raise
        failure = CallFailure(requests.RequestException, HTTPError, hidden=(BaseException,))
        with failure:
            return coming.result()
        raise AIRiskUnavailable(f"AIRisk could not be reached ({failure.cause}).")


class _PolledReply(BlockingReply):
    def __init__(self, response: requests.Response, relay: BlockingRelay, call: Unlogged) -> None:
        super().__init__(response, call)
        self._relay = relay

    async def read(self, ends: float) -> bytes:
        if self._timed is not None:
            await self._relay.wait(self._timed.has_data, ends)
        return self._read(ends)
