"""As :mod:`airisk_oauth.transport`, without ever blocking the event loop; on ``httpx2``, the extra ``async``."""

import asyncio
import os
import ssl
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from django.utils import timezone
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from . import protocol
from .environment import ProxyUnusable, described, environment_for, interruption, obstacle, untraced
from .exceptions import AIRiskUnavailable
from .protocol import ConnectionLost, Reply
from .transport import HEADERS, tell, unanswered

try:
    import httpx2
except ImportError:
    raise ImportError("Asynchronous calls need httpx2: pip install 'django-airisk-oauth[async]'") from None

if TYPE_CHECKING:
    from .conf import Deployment
    from .protocol import Call, Calls, Result


__all__ = ["AsyncOAuthClient", "EnvironmentTransport", "httpx2"]

#: By scheme: the package that ``httpx2`` needs for such a proxy, if any.
_PROXY_SCHEMES: Final = {"http": "", "https": "", "socks5": "socksio", "socks5h": "socksio"}
#: Bytes of a body that have the write timeout together.
_PIECE: Final = 64 * 1024


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
        lost = None
        try:
            call = next(calls)
            while True:
                try:
                    reply = await self._send(call, ends)
                except ConnectionLost as error:
                    lost = error
                else:
                    call = calls.send(reply)
                    continue
                # Whoever closes connections without a word would do so again.
                self._keeps_connections = False
                call = calls.throw(lost)
        except StopIteration as end:
            result: Result = end.value
            return result
        except ConnectionLost as error:
            lost = error
        raise AIRiskUnavailable(str(lost)) from None

    async def _send(self, call: "Call", ends: float) -> Reply:
        began = time.monotonic()
        failure = cause = ""
        course = _Course()
        try:
            async with asyncio.timeout_at(ends), self._connections() as transport:
                with untraced():
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
            tell(self.deployment, call, began, failure)
            # Here, where the caught exception and the request that it carries are gone, not only hidden.
            if course.was_reused and not course.is_answered and not is_late:
                raise ConnectionLost(str(unanswered(cause))) from None
            raise unanswered(cause) from None
        tell(self.deployment, call, began, response.status_code)
        return Reply.of(response.status_code, response.headers, body, now=timezone.now())

    @asynccontextmanager
    async def _connections(self) -> AsyncIterator["EnvironmentTransport"]:
        """Lend the transport whose connections are used again, or one for this call only."""
        if self._keeps_connections:
            yield self._transport
            return
        async with EnvironmentTransport(self.deployment.base_url) as transport:
            yield transport

    def _request(self, call: "Call", course: "_Course") -> httpx2.Request:
        timeout = httpx2.Timeout(self.deployment.timeout[1], connect=min(self.deployment.timeout))
        extensions = {"timeout": timeout.as_dict(), "trace": course}
        return httpx2.Request(call.method, call.url, headers=HEADERS, data=call.form, extensions=extensions)


class _Course:
    """Follows a request by what ``httpcore2`` traces.

    :ivar was_reused: it went out on a connection that had been used before.
    :ivar is_answered: the headers of an answer came.
    """

    def __init__(self) -> None:
        self._has_connected = False
        self.was_reused = False
        self.is_answered = False

    async def __call__(self, event: str, _info: dict[str, Any]) -> None:
        if event.endswith("connect_tcp.started"):
            self._has_connected = True
        elif event.endswith("send_request_headers.started"):
            self.was_reused = not self._has_connected
        elif event.endswith("receive_response_headers.complete"):
            self.is_answered = True


class EnvironmentTransport(httpx2.AsyncBaseTransport):
    """Connects through the proxy and trusts the CA bundle that :func:`environment_for` names; made when first used.

    The look-up of a name and all of its addresses have the connect timeout together, TLS has it again, and the headers
    of an answer have the read timeout, however they come. There is no limit to the connections at a time.

    :param keep_alive: whether connections are used again.
    """

    def __init__(self, base_url: str, *, keep_alive: bool = True) -> None:
        environment = environment_for(base_url)
        self._proxy: str | None = next(iter(environment["proxies"].values()), None)
        self._verify: str | bool = environment["verify"]
        # The connections are those of a loop and of its tasks, of which nobody starts more than they want.
        self._limits = httpx2.Limits(max_connections=None, max_keepalive_connections=20 if keep_alive else 0)
        self._inner: httpx2.AsyncHTTPTransport | None = None
        self._process = os.getpid()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if self._inner is None or self._process != os.getpid():
            # Of a process that was forked, the parent uses the same sockets, and would get our answers.
            self._process = os.getpid()
            self._inner = self._made()
        if isinstance(request.stream, httpx2.ByteStream):
            request.stream = _Pieces(b"".join(request.stream))
        timeouts, given = request.extensions.get("timeout", {}), request.extensions
        try:
            async with asyncio.timeout(None) as limit:
                request.extensions = {**given, "trace": _Stages(limit, timeouts, given.get("trace"))}
                return await self._inner.handle_async_request(request)
        except TimeoutError as error:
            if not limit.expired():
                raise
            late = error
        finally:
            request.extensions = given
        raise httpx2.ReadTimeout("The headers did not come in time.", request=request) from late

    async def aclose(self) -> None:
        if self._inner is not None and self._process == os.getpid():
            await self._inner.aclose()

    def _made(self) -> httpx2.AsyncHTTPTransport:
        bundle = DEFAULT_CA_BUNDLE_PATH if self._verify is True else str(self._verify)
        named = obstacle(self._proxy, bundle, _PROXY_SCHEMES)
        if named is not None:
            raise named
        context = _trusting(bundle, Path(bundle).stat().st_mtime_ns)
        try:
            return httpx2.AsyncHTTPTransport(verify=context, trust_env=False, proxy=self._proxy, limits=self._limits)
        except (ValueError, httpx2.InvalidURL):
            raise ProxyUnusable("the environment names a proxy whose address cannot be read") from None


class _Stages:
    """Limits the time in which the headers of an answer come, by what ``httpcore2`` traces, and passes that on.

    It limits connecting and sending by itself, and leaves connections open when TLS is cancelled from outside.
    """

    def __init__(self, limit: asyncio.Timeout, timeouts: dict[str, float | None], trace: Any) -> None:
        self._limit = limit
        self._timeouts = timeouts
        self._trace = trace

    async def __call__(self, event: str, info: dict[str, Any]) -> None:
        if event.endswith("receive_response_headers.started"):
            self._allow(self._timeouts.get("read"))
        elif event.endswith("receive_response_headers.complete"):
            # Those of a proxy's answer to CONNECT may have been the first.
            self._allow(None)
        if self._trace is not None:
            await self._trace(event, info)

    def _allow(self, seconds: float | None) -> None:
        now = asyncio.get_running_loop().time()
        self._limit.reschedule(None if seconds is None else now + seconds)


class _Pieces(httpx2.ByteStream):
    """A body that is sent piece by piece, for the write timeout is for each."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self._content) or 1, _PIECE):
            yield self._content[start : start + _PIECE]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece


@lru_cache(maxsize=4)
def _trusting(bundle: str, _changed_at: int) -> ssl.SSLContext:
    """Return a context for this bundle, which takes long to read, read again only when it has changed."""
    is_directory = Path(bundle).is_dir()
    return ssl.create_default_context(cafile=None if is_directory else bundle, capath=bundle if is_directory else None)


async def _limited_body(response: httpx2.Response) -> bytes | None:
    body = b""
    async for chunk in response.aiter_raw(4096):
        body += chunk
        if len(body) > protocol.MAX_BODY:
            return None
    if response.headers.get("content-encoding", "").lower() in ("gzip", "deflate"):
        # Not asked for, but some gateway's way. Only so much is ever unpacked: httpx2 would unpack all of a chunk.
        body = zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(body, protocol.MAX_BODY + 1)
    return body if len(body) <= protocol.MAX_BODY else None
