"""Calls AIRisk's two OAuth endpoints with ``httpx2``, without blocking the event loop (extra ``async``).

The rules are those of :mod:`.transport`.
"""

import asyncio
import time
import zlib
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Concatenate, Final

from django.utils import timezone

from ..exceptions import AIRiskUnavailable
from ..wire.async_environment import Course, EnvironmentTransport, httpx2
from ..wire.environment import suppress_tracing
from ..wire.failures import CallFailure
from .calls import HEADERS, Arguments, Result, Send, log_call, response_of, unanswered
from .messages import MAX_BODY, ConnectionLost, OAuthRequest, OAuthResponse

if TYPE_CHECKING:
    from .deployment import Deployment


_NO_ANSWER: Final = (OSError, ValueError, zlib.error, httpx2.HTTPError, httpx2.InvalidURL)


class AsyncOAuthClient(AbstractAsyncContextManager["AsyncOAuthClient"]):
    """Calls the OAuth endpoints of one deployment; connections are kept until it is closed."""

    def __init__(self, deployment: "Deployment") -> None:
        self.deployment = deployment
        # The transport, not a client: nothing is redirected or logged, and no cookie of one user reaches another's.
        self._transport = EnvironmentTransport(deployment.base_url)
        self._keeps_connections = True

    async def __aexit__(self, *exc: object) -> None:
        await self._transport.aclose()

    async def run(
        self,
        flow: Callable[Concatenate[Send, Arguments], Coroutine[Any, Any, Result]],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        """As :meth:`.transport.OAuthClient.run`, without blocking the event loop."""
        ends = asyncio.get_running_loop().time() + self.deployment.timeout[1]

        async def send(request: OAuthRequest) -> OAuthResponse:
            return await self._send(request, ends)

        try:
            return await flow(send, *args, **kwargs)
        except ConnectionLost as error:
            lost = str(error)
        raise AIRiskUnavailable(lost)

    async def _send(self, request: OAuthRequest, ends: float) -> OAuthResponse:
        began = time.monotonic()
        course = Course()
        failure = CallFailure(*_NO_ANSWER, hidden=(BaseException,))
        with failure:
            async with asyncio.timeout_at(ends), self._connections() as transport:
                with suppress_tracing():
                    reply = await transport.handle_async_request(self._request(request, course))
                try:
                    body = await _limited_body(reply)
                finally:
                    await reply.aclose()
        if failure.cause:
            log_call(self.deployment, request, began, failure.name)
            if course.has_lost_connection and not failure.is_a(TimeoutError, httpx2.TimeoutException):
                # Whatever closes connections without notice would do so again.
                self._keeps_connections = False
                raise ConnectionLost(str(unanswered(failure.cause)))
            raise unanswered(failure.cause)
        log_call(self.deployment, request, began, reply.status_code)
        return response_of(reply.status_code, reply.headers, body, now=timezone.now())

    @asynccontextmanager
    async def _connections(self) -> AsyncIterator["EnvironmentTransport"]:
        """Lend the transport whose connections are used again, or one for this call only."""
        if self._keeps_connections:
            yield self._transport
            return
        async with EnvironmentTransport(self.deployment.base_url) as transport:
            yield transport

    def _request(self, request: OAuthRequest, course: Course) -> httpx2.Request:
        timeout = httpx2.Timeout(self.deployment.timeout[1], connect=min(self.deployment.timeout))
        extensions = {"timeout": timeout.as_dict(), "trace": course}
        return httpx2.Request(request.method, request.url, headers=HEADERS, data=request.form, extensions=extensions)


async def _limited_body(response: httpx2.Response) -> bytes | None:
    body = b""
    async for chunk in response.aiter_raw(4096):
        body += chunk
        if len(body) > MAX_BODY:
            return None
    if response.headers.get("content-encoding", "").lower() in ("gzip", "deflate"):
        # Not asked for, but some gateway's way. Only so much is ever unpacked: httpx2 would unpack all of a chunk.
        body = zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(body, MAX_BODY + 1)
    return body if len(body) <= MAX_BODY else None
