"""As :mod:`airisk_oauth.transport`, without ever blocking the event loop; on ``httpx2``, the extra ``async``."""

import asyncio
import ssl
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from requests.utils import DEFAULT_CA_BUNDLE_PATH, select_proxy

from . import protocol
from .protocol import Reply
from .transport import HEADERS, environment_for, tell, unanswered, untraced

try:
    import httpx2
except ImportError:
    raise ImportError("Asynchronous calls need httpx2: pip install 'django-airisk-oauth[async]'") from None

if TYPE_CHECKING:
    from .conf import Deployment
    from .protocol import Call, Calls, Result


__all__ = ["AsyncOAuthClient", "EnvironmentTransport", "httpx2"]


class AsyncOAuthClient(AbstractAsyncContextManager["AsyncOAuthClient"]):
    """Calls the OAuth endpoints of one deployment; connections are kept until it is closed."""

    def __init__(self, deployment: "Deployment") -> None:
        self.deployment = deployment
        # The transport, not a client: nothing is redirected or logged, and no cookie of one user reaches another's.
        self._transport = EnvironmentTransport(deployment.base_url)

    async def __aexit__(self, *exc: object) -> None:
        await self._transport.aclose()

    async def run(self, calls: "Calls[Result]") -> "Result":
        """Send these calls, and return what they come to, within ``TIMEOUT``'s read seconds for all of them together.

        :raises AIRiskError: AIRisk could not be reached, or what the calls themselves make of a reply.
        """
        ends = asyncio.get_running_loop().time() + self.deployment.timeout[1]
        try:
            call = next(calls)
            while True:
                call = calls.send(await self._send(call, ends))
        except StopIteration as end:
            result: Result = end.value
            return result

    async def _send(self, call: "Call", ends: float) -> Reply:
        began = time.monotonic()
        failure = ""
        try:
            async with asyncio.timeout_at(ends):
                with untraced():
                    response = await self._transport.handle_async_request(self._request(call))
                try:
                    body = await _limited_body(response)
                finally:
                    await response.aclose()
        except (OSError, UnicodeError, zlib.error, httpx2.HTTPError) as error:
            failure = type(error).__name__
        except BaseException as error:  # noqa: BLE001 - it is raised again
            # A cancelled task, say. Crash reports show frames, and those of the call hold the client secret.
            raise error.with_traceback(None) from None
        if failure:
            tell(self.deployment, call, began, failure)
            # Here, where the caught exception and the request that it carries are gone, not only hidden.
            raise unanswered(failure) from None
        tell(self.deployment, call, began, response.status_code)
        return Reply.of(response.status_code, response.headers, body)

    def _request(self, call: "Call") -> httpx2.Request:
        timeout = httpx2.Timeout(self.deployment.timeout[1], connect=min(self.deployment.timeout))
        extensions = {"timeout": timeout.as_dict()}
        return httpx2.Request(call.method, call.url, headers=HEADERS, data=call.form, extensions=extensions)


class EnvironmentTransport(httpx2.AsyncBaseTransport):
    """Connects through the proxy and trusts the CA bundle that :func:`environment_for` names; made when first used."""

    def __init__(self, base_url: str, *, keep_alive: bool = True) -> None:
        environment = environment_for(base_url)
        self._proxy: Any = select_proxy(base_url, environment["proxies"])
        self._bundle = DEFAULT_CA_BUNDLE_PATH if environment["verify"] is True else environment["verify"]
        self._limits = httpx2.Limits(max_connections=100, max_keepalive_connections=20 if keep_alive else 0)
        self._inner: httpx2.AsyncHTTPTransport | None = None
        self._answers = 0
        self._winds_down = False

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if self._inner is None:
            context = _trusting(self._bundle, Path(self._bundle).stat().st_mtime_ns)
            self._inner = httpx2.AsyncHTTPTransport(
                verify=context, trust_env=False, proxy=self._proxy, limits=self._limits
            )
        self._answers += 1
        try:
            response = await self._inner.handle_async_request(request)
        except BaseException:
            await self._answer_is_over()
            raise
        response.stream = _Watched(response.stream, self._answer_is_over)
        return response

    async def aclose(self) -> None:
        inner, self._inner = self._inner, None
        if inner is not None:
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
