"""An ``httpx2.AsyncClient`` for one deployment (extra ``async``). The rules are those of :mod:`.sessions`."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self, TypeVar

from .. import conf
from ..exceptions import AIRiskInvalidResponse, AIRiskUnavailable
from ..oauth.calls import USER_AGENT
from ..oauth.deployment import DEFAULT_PORTS, Deployment
from ..tokens.waiting import NON_BLOCKING
from ..wire.async_environment import EnvironmentTransport, httpx2, leave
from ..wire.failures import CallFailure
from . import bearer
from .bearer import BearerPolicy, BearerSource

Result = TypeVar("Result")

_NO_ANSWER: Final = (OSError, UnicodeError, httpx2.TransportError, httpx2.DecodingError)

if TYPE_CHECKING:
    from httpx2 import AsyncClient

    from .async_chat import AsyncChat
else:
    # As httpx2 defines it: a caching client in its place would give one user's response to another.
    AsyncClient = next(each for each in httpx2.AsyncClient.__mro__ if each.__module__.split(".")[0] == "httpx2")


class AsyncAIRiskClient(AsyncClient):
    """An ``httpx2.AsyncClient`` that calls one deployment. Paths are joined to ``BASE_URL``; ``API_TIMEOUT`` applies.

    Every HTTP status is returned as a response. After a 401 the token is renewed and the request is sent once more,
    unless its body is a stream; the second response is returned whatever it is. With ``follow_redirects``, which
    ``httpx2`` leaves off by default, a redirect to another origin is returned, not followed.

    Calls raise what :meth:`~airisk_oauth.tokens.renewal.Renewal.credential` raises; ``AIRiskUnavailable`` if no
    response arrives; ``httpx2.InvalidURL``, before connecting, for an origin that is not the deployment's.

    :param source: whose token to send; called for each request.
    :param keep_alive: whether connections are kept until the client is closed.
    """

    def __init__(self, deployment: Deployment, source: BearerSource, *, keep_alive: bool = True) -> None:
        connect, read = deployment.api_timeout
        self._environment_transport = EnvironmentTransport(deployment.base_url, keep_alive=keep_alive, repeats=True)
        super().__init__(
            auth=_BearerAuth(source),
            headers={"Accept": "application/json", "User-Agent": USER_AGENT},
            timeout=httpx2.Timeout(read, connect=connect),
            transport=self._environment_transport,
            trust_env=False,
        )
        self.deployment = deployment
        self._source = source
        self._signer: BearerPolicy | None = None

    @classmethod
    def for_user(cls, user: Any, deployment: str = conf.DEFAULT_ALIAS, *, keep_alive: bool = True) -> Self:
        """Call as this user, who may be lazy, as ``request.user`` is. No I/O; errors come with the first call.

        :raises TypeError: ``user`` is ``None``.
        """
        options = conf.deployment(deployment)
        return cls(options, bearer.of_user(options, user), keep_alive=keep_alive)

    @classmethod
    def for_application(cls, deployment: str = conf.DEFAULT_ALIAS, *, keep_alive: bool = True) -> Self:
        """Call as the application itself, with the generic token. No I/O; errors come with the first call."""
        options = conf.deployment(deployment)
        return cls(options, bearer.of_application(options), keep_alive=keep_alive)

    @property
    def chat(self) -> "AsyncChat":
        """AIRisk's chat API, called as the same owner."""
        from .async_chat import AsyncChat

        return AsyncChat(self, self.deployment.api_timeout)

    async def wind_down(self) -> None:
        """Close idle connections, and keep none from now on. A response that is streaming can be read to its end."""
        await self._environment_transport.wind_down()

    def build_request(self, method: str, url: httpx2.URL | str, **options: Any) -> httpx2.Request:
        """Join a path to ``BASE_URL``, then build as ``httpx2`` does."""
        joined = bearer.url_of(self.deployment, str(url))
        if joined is None:
            raise httpx2.InvalidURL(bearer.NO_PATH)
        if options.get("timeout", self.timeout) is None:
            # As in AIRiskSession. No limit at all is httpx2.Timeout(None).
            options["timeout"] = httpx2.USE_CLIENT_DEFAULT
        signer = self._source()
        if self._signer not in (None, signer):
            # AIRisk set these cookies for another user.
            self.cookies.clear()
        self._signer = signer
        return super().build_request(method, joined, **options)

    async def send(
        self,
        request: httpx2.Request,
        *,
        stream: bool = False,
        auth: Any = httpx2.USE_CLIENT_DEFAULT,
        follow_redirects: Any = httpx2.USE_CLIENT_DEFAULT,
    ) -> httpx2.Response:
        """Send, and follow redirects within the deployment's origin only; each hop gets its own ``Authorization``."""
        follows = self.follow_redirects if follow_redirects is httpx2.USE_CLIENT_DEFAULT else follow_redirects
        history: list[httpx2.Response] = []
        while True:
            response = await self._send_once(request, auth=auth)
            response.history = [*history, *response.history]
            following = response.next_request
            if not follows or following is None or not self._may_follow(following):
                return response if stream else await _read(response)
            if len(history) == self.max_redirects:
                await response.aclose()
                raise AIRiskInvalidResponse(bearer.ENDLESS)
            history.append(response)
            await _answered(leave(response))
            request = following

    async def _send_once(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        if not _is_ours(self.deployment, request.url):
            raise httpx2.InvalidURL(bearer.NOT_OURS)
        return await _answered(super().send(request, stream=True, follow_redirects=False, **options))

    def _may_follow(self, request: httpx2.Request) -> bool:
        return _is_ours(self.deployment, request.url) and _can_be_sent_again(request)

    def __reduce__(self) -> NoReturn:
        raise TypeError(bearer.NO_PICKLES)


class _BearerAuth(httpx2.Auth):
    def __init__(self, source: BearerSource) -> None:
        self._source = source

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        signer = self._source()
        credential = await signer.credential(NON_BLOCKING)
        request.headers["Authorization"] = credential.header
        response = yield request
        if response.status_code != 401:
            return
        another = await signer.replacement(credential.token, NON_BLOCKING)
        if another is None or not _can_be_sent_again(request):
            return
        await leave(response)
        request.headers["Authorization"] = another.header
        response = yield request
        await signer.note_replay(response.status_code, another, NON_BLOCKING)


async def _answered(work: Awaitable[Result]) -> Result:
    """Await a call; if no answer comes, that is ``AIRiskUnavailable``."""
    failure = CallFailure(*_NO_ANSWER, hidden=(asyncio.CancelledError,))
    with failure:
        return await work
    raise AIRiskUnavailable(f"AIRisk could not be reached ({failure.cause}).")


async def _read(response: httpx2.Response) -> httpx2.Response:
    try:
        await _answered(response.aread())
    except BaseException:
        await response.aclose()
        raise
    return response


def _can_be_sent_again(request: httpx2.Request) -> bool:
    """Tell whether a body is in memory, or made of files that ``httpx2`` reads from the start each time."""
    stream: Any = request.stream
    if hasattr(stream, "boundary"):
        return all(_can_be_read_again(getattr(field, "file", b"")) for field in stream.fields)
    return isinstance(stream, httpx2.ByteStream)


def _can_be_read_again(file: Any) -> bool:
    try:
        return isinstance(file, str | bytes) or bool(file.seekable())
    except (AttributeError, ValueError):
        # No file, or a closed one.
        return False


def _is_ours(deployment: Deployment, url: httpx2.URL) -> bool:
    """Tell whether the bearer may be sent there, by the parts that ``httpx2`` uses, not by the URL as written."""
    host = url.raw_host.decode("ascii")
    return (url.scheme, host, url.port or DEFAULT_PORTS.get(url.scheme)) == deployment.origin and not url.userinfo
