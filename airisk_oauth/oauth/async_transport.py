"""As :mod:`airisk_oauth.transport`, without ever blocking the event loop; on ``httpx2``, the extra ``async``."""

import asyncio
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

from django.utils import timezone

from ..exceptions import AIRiskUnavailable
from ..wire.async_environment import Course, EnvironmentTransport, httpx2
from ..wire.environment import described, interruption, suppress_tracing
from .calls import HEADERS, log_call, unanswered
from .messages import MAX_BODY, ConnectionLost, OAuthResponse

if TYPE_CHECKING:
    from .deployment import Deployment
    from .messages import Calls, OAuthRequest, Result


__all__ = ["AsyncOAuthClient", "EnvironmentTransport", "httpx2"]


class AsyncOAuthClient(AbstractAsyncContextManager["AsyncOAuthClient"]):
    """Calls the OAuth endpoints of one deployment; connections are kept until it is closed."""

    def __init__(self, deployment: "Deployment") -> None:
        self.deployment = deployment
        # The transport, not a client: nothing is redirected or logged, and no cookie of one user reaches another's.
        self._transport = EnvironmentTransport(deployment.base_url)
        self._keeps_connections = True

    async def __aexit__(self, *exc: object) -> None:
        await self._transport.aclose()

    async def run(self, calls: "Calls[Result]") -> "Result":
        """Send these calls, and return what they come to, within ``TIMEOUT``'s read seconds for all of them together.

        :raises AIRiskError: AIRisk could not be reached, or what the calls themselves make of a reply.
        """
        ends = asyncio.get_running_loop().time() + self.deployment.timeout[1]
        lost = ""
        try:
            call = next(calls)
            while True:
                try:
                    reply = await self._send(call, ends)
                except ConnectionLost as error:
                    lost = str(error)
                else:
                    call = calls.send(reply)
                    continue
                # Whoever closes connections without a word would do so again.
                self._keeps_connections = False
                call = calls.throw(ConnectionLost(lost))
        except StopIteration as end:
            result: Result = end.value
            return result
        except ConnectionLost as error:
            lost = str(error)
        raise AIRiskUnavailable(lost) from None

    async def _send(self, call: "OAuthRequest", ends: float) -> OAuthResponse:
        began = time.monotonic()
        failure = cause = ""
        course = Course()
        try:
            async with asyncio.timeout_at(ends), self._connections() as transport:
                with suppress_tracing():
                    response = await transport.handle_async_request(self._request(call, course))
                try:
                    body = await _limited_body(response)
                finally:
                    await response.aclose()
        except (OSError, ValueError, zlib.error, httpx2.HTTPError, httpx2.InvalidURL) as error:
            own = interruption(error)
            if own is not None:
                raise own.with_traceback(None) from None
            failure, cause = type(error).__name__, described(error)
            is_late = isinstance(error, TimeoutError | httpx2.TimeoutException)
        except BaseException as error:  # noqa: BLE001 - it is raised again
            # A cancelled task, say. Crash reports show frames, and those of the call hold the client secret.
            raise error.with_traceback(None) from None
        if failure:
            log_call(self.deployment, call, began, failure)
            # Here, where the caught exception and the request that it carries are gone, not only hidden.
            if course.has_lost_connection and not is_late:
                raise ConnectionLost(str(unanswered(cause))) from None
            raise unanswered(cause) from None
        log_call(self.deployment, call, began, response.status_code)
        return OAuthResponse.of(response.status_code, response.headers, body, now=timezone.now())

    @asynccontextmanager
    async def _connections(self) -> AsyncIterator["EnvironmentTransport"]:
        """Lend the transport whose connections are used again, or one for this call only."""
        if self._keeps_connections:
            yield self._transport
            return
        async with EnvironmentTransport(self.deployment.base_url) as transport:
            yield transport

    def _request(self, call: "OAuthRequest", course: Course) -> httpx2.Request:
        timeout = httpx2.Timeout(self.deployment.timeout[1], connect=min(self.deployment.timeout))
        extensions = {"timeout": timeout.as_dict(), "trace": course}
        return httpx2.Request(call.method, call.url, headers=HEADERS, data=call.form, extensions=extensions)


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
