"""A ``requests.Session`` for one deployment. The token goes to the deployment's own origin only, on every hop."""

from collections.abc import Iterator
from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn, Self

import requests
from requests.exceptions import InvalidURL
from urllib3.exceptions import HTTPError

from .. import conf
from ..exceptions import AIRiskInvalidResponse, AIRiskUnavailable
from ..oauth.calls import USER_AGENT
from ..wire.adapter import Session, TimedAdapter, leave
from ..wire.environment import proxies_and_ca_bundle
from ..wire.failures import CallFailure
from . import bearer
from .auth import AIRiskAuth, target_origin
from .call_log import call_of

if TYPE_CHECKING:
    from .async_client import AsyncAIRiskClient
    from .bearer import BearerPolicy
    from .chat import Chat


class AIRiskSession(Session):
    """A ``requests.Session`` that calls one deployment. Paths are joined to ``BASE_URL``, and ``API_TIMEOUT`` applies.

    Every HTTP status is returned as a response. Besides what :class:`.AIRiskAuth` raises, a call raises
    ``AIRiskUnavailable`` if no response arrives. A redirect to another origin is returned, not followed.
    """

    #: Whether :attr:`aclient` keeps its connections between calls: not where each call has its own event loop.
    keeps_async_connections = True

    def __init__(self, auth: AIRiskAuth) -> None:
        super().__init__()
        self.deployment = auth.deployment
        self.auth = auth
        auth.logs_calls = False
        self._source = auth.source
        self._signer: BearerPolicy | None = None
        self._winds_down = False
        self.headers.update({"Accept": "application/json", "User-Agent": USER_AGENT})
        # Read once, and without .netrc: requests would read all of it for every call.
        self.trust_env = False
        environment = proxies_and_ca_bundle(self.deployment.base_url)
        self.proxies, self.verify = environment["proxies"], environment["verify"]
        adapter = TimedAdapter()
        self.mount("https://", adapter)
        self.mount("http://", adapter)

    @classmethod
    def for_user(cls, user: Any, deployment: str = conf.DEFAULT_ALIAS) -> Self:
        """Call as this user. No I/O; errors come with the first call.

        :raises TypeError: ``user`` is ``None``.
        """
        return cls(AIRiskAuth.for_user(user, deployment))

    @classmethod
    def for_application(cls, deployment: str = conf.DEFAULT_ALIAS) -> Self:
        """Call as the application itself, with the generic token. No I/O; errors come with the first call."""
        return cls(AIRiskAuth.for_application(deployment))

    @classmethod
    def for_visitor(cls, request: Any, deployment: str = conf.DEFAULT_ALIAS) -> Self:
        """Call as whoever ``request.user`` is at the moment of each call, as ``request.airisk`` does."""
        options = conf.deployment(deployment)
        return cls(AIRiskAuth(options, bearer.of_visitor(options, request)))

    @cached_property
    def aclient(self) -> "AsyncAIRiskClient":
        """The asynchronous client of the same owner, on ``httpx2``, made on first use (extra ``async``)."""
        from .async_client import AsyncAIRiskClient

        return AsyncAIRiskClient(self.deployment, self._source, keep_alive=self.keeps_async_connections)

    @property
    def chat(self) -> "Chat":
        """AIRisk's chat API, called as the same owner."""
        from .chat import Chat

        return Chat(self, self.deployment.api_timeout)

    async def aclose(self) -> None:
        """Close the connections of this session and of :attr:`aclient`."""
        self.close()
        if "aclient" in vars(self):
            await self.aclient.aclose()

    def wind_down(self) -> None:
        """Close idle connections, and keep none from now on. A response that is streaming can be read to its end."""
        self.close()
        self._winds_down = True

    async def awind_down(self) -> None:
        """As :meth:`wind_down`, for :attr:`aclient`."""
        if "aclient" in vars(self):
            await self.aclient.wind_down()

    def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
        """Join a path to ``BASE_URL``, then prepare as ``requests`` does."""
        url = bearer.url_of(self.deployment, str(request.url))
        if url is None:
            raise InvalidURL(bearer.NO_PATH)
        request.url = url
        signer = self._source()
        if self._signer not in (None, signer):
            # AIRisk set these cookies for another user.
            self.cookies.clear()
        self._signer = signer
        return super().prepare_request(request)

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send, with ``API_TIMEOUT`` where the caller gave no timeout."""
        if not bearer.is_ours(self.deployment, request.url or ""):
            raise InvalidURL(bearer.NOT_OURS)
        if kwargs.get("timeout") is None:
            kwargs["timeout"] = self.deployment.api_timeout
        with call_of(request) as call:
            response = self._send(request, **kwargs)
            call.note_status(response.status_code)
        return response

    def _send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        failure = CallFailure(requests.RequestException, HTTPError)
        with failure:
            response = super().send(request, **kwargs)
        if failure.is_a(requests.TooManyRedirects):
            raise AIRiskInvalidResponse(bearer.ENDLESS)
        if failure.cause:
            raise AIRiskUnavailable(f"AIRisk could not be reached ({failure.cause}).")
        if self._winds_down:
            # Closes idle connections only; the response keeps its own.
            self.close()
        return response

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Follow redirects within the deployment's origin only."""
        if not resp.is_redirect or target_origin(resp) != self.deployment.origin:
            return None
        try:
            return super().get_redirect_target(resp)
        except UnicodeError:
            return None

    def resolve_redirects(self, resp: Any, req: Any, *args: Any, **options: Any) -> Iterator[requests.Response]:
        """Follow redirects without reading their bodies, which may be endless."""
        if not resp.is_redirect:
            return
        if options.get("yield_requests"):
            # The caller only asks where the redirect leads, and may read its body.
            resp = _without_body(resp)
        elif self.get_redirect_target(resp) is not None:
            leave(resp)
            options["stream"] = True
        for each in super().resolve_redirects(resp, req, *args, **options):
            if isinstance(each, requests.Response) and self.get_redirect_target(each) is not None:
                leave(each)
            yield each

    def __reduce__(self) -> NoReturn:
        raise TypeError(bearer.NO_PICKLES)


def _without_body(response: requests.Response) -> requests.Response:
    """Return a copy that has nothing to read or close, with the same cookies."""
    copy: Any = requests.Response()
    copy.status_code, copy.url, copy.request = response.status_code, response.url, response.request
    copy.headers = response.headers
    copy.raw = SimpleNamespace(_original_response=getattr(response.raw, "_original_response", None))
    copy._content, copy._content_consumed = b"", True
    return copy  # type: ignore[no-any-return]
