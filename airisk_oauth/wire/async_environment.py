"""Connections of ``httpx2`` that use the environment's proxy and CA bundle, and obey time limits."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from requests.utils import DEFAULT_CA_BUNDLE_PATH

from .environment import obstacle, proxies_and_ca_bundle
from .limits import REPEATABLE

try:
    import httpx2
except ImportError:
    raise ImportError("Asynchronous calls need httpx2: pip install 'django-airisk-oauth[async]'") from None

__all__ = ["Course", "EnvironmentTransport", "httpx2", "leave"]

#: The proxy schemes that ``httpx2`` supports, with the module that each needs, if any.
_PROXY_SCHEMES: Final = {"http": "", "https": "", "socks5": "socksio", "socks5h": "socksio"}
#: A request body is sent in chunks of this many bytes, each with the write timeout.
_CHUNK: Final = 64 * 1024
_MAX_DRAINED: Final = 64 * 1024


async def leave(response: httpx2.Response) -> None:
    """Release the connection of a response whose body will not be read; afterwards the body is empty.

    The rest of the body is read so that the connection can be used again: at most 64 KiB, for at most a second. If
    there is more, the connection is closed.

    :raises httpx2.TransportError: the connection is lost before the body is complete.
    """
    stream: Any = response.stream
    try:
        async with asyncio.timeout(1), aclosing(aiter(stream)) as parts:
            read = 0
            async for part in parts:
                read += len(part)
                if read > _MAX_DRAINED:
                    break
    except TimeoutError:
        pass
    finally:
        await stream.aclose()
    response.stream = httpx2.ByteStream(b"")
    await response.aread()


class EnvironmentTransport(httpx2.AsyncBaseTransport):
    """A transport that uses the proxy and CA bundle from :func:`~.environment.proxies_and_ca_bundle`.

    The name lookup and all addresses share the connect timeout, TLS has the same again, and the response headers have
    the read timeout, in however many pieces they arrive. The number of connections is not limited. Nothing is opened
    before the first request.

    :param keep_alive: whether connections are used again.
    :param repeats: whether a request that only reads may be sent again.
    """

    def __init__(self, base_url: str, *, keep_alive: bool = True, repeats: bool = False) -> None:
        environment = proxies_and_ca_bundle(base_url)
        self._proxy: str | None = next(iter(environment["proxies"].values()), None)
        self._verify: str | bool = environment["verify"]
        # No limit: each connection is for a task of the caller's, who decides how many of them run.
        self._limits = httpx2.Limits(max_connections=None, max_keepalive_connections=20 if keep_alive else 0)
        self._inner: httpx2.AsyncHTTPTransport | None = None
        self._repeats = repeats
        self._process = os.getpid()
        self._open_responses = 0
        self._is_winding_down = False

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if self._inner is None or self._process != os.getpid():
            # After a fork the parent uses the same sockets, and would get our responses.
            self._process, self._open_responses = os.getpid(), 0
            self._inner = self._new_transport()
        self._open_responses += 1
        try:
            response = await self._send_again_if_lost(self._inner, request)
        except BaseException:
            await self._response_closed()
            raise
        response.stream = _TrackedBody(response.stream, self._response_closed)
        return response

    async def _send_again_if_lost(self, inner: httpx2.AsyncHTTPTransport, request: httpx2.Request) -> httpx2.Response:
        """Send; if a reused connection was closed without an answer, send a request that only reads again."""
        while self._repeats and request.method in REPEATABLE:
            course = Course(request.extensions.get("trace"))
            try:
                return await self._send(inner, request, course)
            except (httpx2.ReadError, httpx2.WriteError, httpx2.RemoteProtocolError):
                # This ends with a new connection at the latest, because a closed one is not kept.
                if not course.has_lost_connection or not isinstance(request.stream, httpx2.ByteStream):
                    raise
        return await self._send(inner, request, Course(request.extensions.get("trace")))

    async def _send(
        self, inner: httpx2.AsyncHTTPTransport, request: httpx2.Request, course: "Course"
    ) -> httpx2.Response:
        if isinstance(request.stream, httpx2.ByteStream) and not isinstance(request.stream, _ChunkedBody):
            body = b"".join(request.stream)
            if len(body) > _CHUNK:
                request.stream = _ChunkedBody(body)
        given = request.extensions
        try:
            async with asyncio.timeout(None) as limit:
                course.limit_headers(limit, given.get("timeout", {}).get("read"))
                request.extensions = {**given, "trace": course}
                return await inner.handle_async_request(request)
        except TimeoutError:
            if not limit.expired():
                raise
        finally:
            request.extensions = given
        raise httpx2.ReadTimeout("The response headers did not arrive in time.", request=request)

    async def aclose(self) -> None:
        inner, self._inner = self._inner, None
        if inner is not None and self._process == os.getpid():
            await inner.aclose()

    async def wind_down(self) -> None:
        """Close all connections as soon as no response is open; after later requests, too."""
        self._is_winding_down = True
        if not self._open_responses:
            await self.aclose()

    async def _response_closed(self) -> None:
        self._open_responses -= 1
        if self._is_winding_down and not self._open_responses:
            await self.aclose()

    def _new_transport(self) -> httpx2.AsyncHTTPTransport:
        bundle = DEFAULT_CA_BUNDLE_PATH if self._verify is True else str(self._verify)
        named = obstacle(self._proxy, bundle, _PROXY_SCHEMES)
        if named is not None:
            raise named
        context = _ssl_context(bundle, Path(bundle).stat().st_mtime_ns)
        return httpx2.AsyncHTTPTransport(verify=context, trust_env=False, proxy=self._proxy, limits=self._limits)


class _TrackedBody(httpx2.AsyncByteStream):
    """A response body that reports when it is closed, whether it was read or not."""

    def __init__(self, stream: Any, closed: Callable[[], Awaitable[None]]) -> None:
        self._stream, self._closed, self._is_open = stream, closed, True

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream.__aiter__()  # type: ignore[no-any-return]

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            if self._is_open:
                self._is_open = False
                await self._closed()


class Course:
    """Follows a request by the trace events of ``httpcore2``, and passes them on.

    :ivar has_lost_connection: whether a request that failed, other than by a timeout, failed because it reused a stale
        connection.
    """

    def __init__(self, trace: Any = None) -> None:
        self._trace = trace
        self._has_connected = False
        self._limit: asyncio.Timeout | None = None
        self._read_timeout: float | None = None
        self.has_lost_connection = False

    def limit_headers(self, limit: asyncio.Timeout, seconds: float | None) -> None:
        """Limit the time for the response headers.

        ``httpcore2`` limits connecting and sending itself. Those must not be cancelled from here: cancelled during TLS,
        it would leave the connection open.
        """
        self._limit, self._read_timeout = limit, seconds

    async def __call__(self, event: str, info: dict[str, Any]) -> None:
        # Named after the protocol, such as "http11.send_request_headers.started".
        match event.partition(".")[2]:
            case "connect_tcp.started":
                self._has_connected = True
            case "send_request_headers.started":
                self.has_lost_connection = not self._has_connected
            case "receive_response_headers.started":
                self._allow(self._read_timeout)
            case "receive_response_headers.complete":
                self.has_lost_connection = False
                # These may be the headers of a proxy's response to CONNECT, and the real ones are still to come.
                self._allow(None)
        if self._trace is not None:
            await self._trace(event, info)

    def _allow(self, seconds: float | None) -> None:
        if self._limit is not None:
            now = asyncio.get_running_loop().time()
            self._limit.reschedule(None if seconds is None else now + seconds)


class _ChunkedBody(httpx2.ByteStream):
    """A request body that is sent in chunks, each with the write timeout."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self._content), _CHUNK):
            yield self._content[start : start + _CHUNK]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self:
            yield chunk


@lru_cache(maxsize=4)
def _ssl_context(bundle: str, _changed_at: int) -> ssl.SSLContext:
    """Return a context that trusts this bundle; cached until the file changes, because it takes long to read."""
    is_directory = Path(bundle).is_dir()
    return ssl.create_default_context(cafile=None if is_directory else bundle, capath=bundle if is_directory else None)
