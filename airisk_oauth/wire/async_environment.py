"""Connections of ``httpx2`` as the environment wants them: its proxy, its CA bundle, and ends that hold."""

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

#: By scheme: the package that ``httpx2`` needs for such a proxy, if any.
_PROXY_SCHEMES: Final = {"http": "", "https": "", "socks5": "socksio", "socks5h": "socksio"}
#: Bytes of a body that have the write timeout together.
_PIECE: Final = 64 * 1024
_DRAINED: Final = 64 * 1024


async def leave(response: httpx2.Response) -> None:
    """Give back the connection of a response whose body nobody wants to read: it is empty from now on.

    What is left of the body is read for this, up to 64 KiB in a second. Of more the connection is closed.

    :raises httpx2.TransportError: the body breaks off.
    """
    stream: Any = response.stream
    try:
        async with asyncio.timeout(1), aclosing(aiter(stream)) as parts:
            read = 0
            async for part in parts:
                read += len(part)
                if read > _DRAINED:
                    break
    except TimeoutError:
        pass
    finally:
        await stream.aclose()
    response.stream = httpx2.ByteStream(b"")
    await response.aread()


class EnvironmentTransport(httpx2.AsyncBaseTransport):
    """Connects through the proxy and trusts the CA bundle that :func:`environment_for` names; made when first used.

    The look-up of a name and all of its addresses have the connect timeout together, TLS has it again, and the headers
    of an answer have the read timeout, however they come. There is no limit to the connections at a time.

    :param keep_alive: whether connections are used again.
    :param repeats: whether what only reads may be sent again.
    """

    def __init__(self, base_url: str, *, keep_alive: bool = True, repeats: bool = False) -> None:
        environment = proxies_and_ca_bundle(base_url)
        self._proxy: str | None = next(iter(environment["proxies"].values()), None)
        self._verify: str | bool = environment["verify"]
        # The connections are those of a loop and of its tasks, of which nobody starts more than they want.
        self._limits = httpx2.Limits(max_connections=None, max_keepalive_connections=20 if keep_alive else 0)
        self._inner: httpx2.AsyncHTTPTransport | None = None
        self._repeats = repeats
        self._process = os.getpid()
        self._answers = 0
        self._winds_down = False

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if self._inner is None or self._process != os.getpid():
            # After a fork the parent uses the same sockets, and would get our answers.
            self._process, self._answers = os.getpid(), 0
            self._inner = self._made()
        self._answers += 1
        try:
            response = await self._send_again_if_lost(self._inner, request)
        except BaseException:
            await self._answer_is_over()
            raise
        response.stream = _Watched(response.stream, self._answer_is_over)
        return response

    async def _send_again_if_lost(self, inner: httpx2.AsyncHTTPTransport, request: httpx2.Request) -> httpx2.Response:
        """Send, and send what only reads once more where a connection that was used before dies without an answer."""
        while self._repeats and request.method in REPEATABLE:
            course = Course(request.extensions.get("trace"))
            try:
                return await self._send(inner, request, course)
            except (httpx2.ReadError, httpx2.WriteError, httpx2.RemoteProtocolError):
                # Ends with a new connection at the latest: one that has died is not kept.
                if not course.has_lost_connection or not isinstance(request.stream, httpx2.ByteStream):
                    raise
        return await self._send(inner, request, request.extensions.get("trace"))

    async def _send(self, inner: httpx2.AsyncHTTPTransport, request: httpx2.Request, trace: Any) -> httpx2.Response:
        if isinstance(request.stream, httpx2.ByteStream) and not isinstance(request.stream, _Pieces):
            request.stream = _Pieces(b"".join(request.stream))
        timeouts, given = request.extensions.get("timeout", {}), request.extensions
        try:
            async with asyncio.timeout(None) as limit:
                request.extensions = {**given, "trace": _Stages(limit, timeouts, trace)}
                return await inner.handle_async_request(request)
        except TimeoutError:
            if not limit.expired():
                raise
        finally:
            request.extensions = given
        raise httpx2.ReadTimeout("The headers did not come in time.", request=request)

    async def aclose(self) -> None:
        inner, self._inner = self._inner, None
        if inner is not None and self._process == os.getpid():
            await inner.aclose()

    async def wind_down(self) -> None:
        """Close what is idle now, and everything once no answer is under way; what is called later does the same."""
        self._winds_down = True
        if not self._answers:
            await self.aclose()

    async def _answer_is_over(self) -> None:
        self._answers -= 1
        if self._winds_down and not self._answers:
            await self.aclose()

    def _made(self) -> httpx2.AsyncHTTPTransport:
        bundle = DEFAULT_CA_BUNDLE_PATH if self._verify is True else str(self._verify)
        named = obstacle(self._proxy, bundle, _PROXY_SCHEMES)
        if named is not None:
            raise named
        context = _trusting(bundle, Path(bundle).stat().st_mtime_ns)
        return httpx2.AsyncHTTPTransport(verify=context, trust_env=False, proxy=self._proxy, limits=self._limits)


class _Watched(httpx2.AsyncByteStream):
    """A response's body that tells when it has been read or left."""

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
    """Follows a request by what ``httpcore2`` traces, and passes that on.

    :ivar has_lost_connection: tells, of a request that failed otherwise than by a timeout, whether it used a connection
        that had gone stale.
    """

    def __init__(self, trace: Any = None) -> None:
        self._trace = trace
        self._has_connected = False
        self.has_lost_connection = False

    async def __call__(self, event: str, info: dict[str, Any]) -> None:
        if event.endswith("connect_tcp.started"):
            self._has_connected = True
        elif event.endswith("send_request_headers.started"):
            self.has_lost_connection = not self._has_connected
        elif event.endswith("receive_response_headers.complete"):
            self.has_lost_connection = False
        if self._trace is not None:
            await self._trace(event, info)


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
