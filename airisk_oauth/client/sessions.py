"""``requests``, with the bearer on it: :class:`AIRiskAuth` for a session of one's own, :class:`AIRiskSession` for ease.

The bearer goes to the deployment's own origin only, checked on every hop.
"""

import time
from collections.abc import Iterator
from datetime import timedelta
from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn, Self
from urllib.parse import urljoin

import requests
from requests.auth import AuthBase
from requests.cookies import extract_cookies_to_jar
from requests.exceptions import InvalidURL
from requests.sessions import SessionRedirectMixin
from requests.utils import rewind_body
from urllib3.exceptions import HTTPError

from .. import conf
from ..exceptions import AIRiskInvalidResponse, AIRiskUnavailable
from ..oauth.calls import USER_AGENT, run
from ..oauth.deployment import Deployment, origin_of
from ..oauth.messages import Secret
from ..tokens.renewal import Credential
from ..tokens.waiting import BLOCKING
from ..wire.adapter import TimedAdapter, leave
from ..wire.environment import proxies_and_ca_bundle
from ..wire.failures import CallFailure
from . import bearer
from .bearer import BearerPolicy, BearerSource

if TYPE_CHECKING:
    from requests import Session

    from .async_client import AsyncAIRiskClient
else:
    # As requests defines it: a caching one that a site has put in its place would give one user's answer to another.
    Session = next(each for each in SessionRedirectMixin.__subclasses__() if each.__module__ == "requests.sessions")


class AIRiskAuth(AuthBase):
    """Puts ``Authorization: Bearer`` on requests to one deployment (RFC 6750, section 2.1), and keeps the token fresh.

    After a 401 the token is renewed and the request sent once more (not if its body is a stream that cannot be
    rewound); what then comes is handed back. If that is a 401 again, none renews the token for a minute.

    Calls raise what :meth:`~airisk_oauth.tokens.renewal.Renewal.credential` raises, and
    ``requests.exceptions.InvalidURL``, before connecting, for another origin than the deployment's.

    :param source: whose token to send, asked for each request.
    """

    def __init__(self, deployment: Deployment, source: BearerSource) -> None:
        self.deployment = deployment
        self.source = source
        self._hook = _Hook(self)

    @classmethod
    def for_user(cls, user: Any, deployment: str = conf.DEFAULT_ALIAS) -> Self:
        """Call as this user. No I/O; errors come with the first call.

        :raises TypeError: ``user`` is ``None``.
        """
        options = conf.deployment(deployment)
        return cls(options, bearer.of_user(options, user))

    @classmethod
    def for_application(cls, deployment: str = conf.DEFAULT_ALIAS) -> Self:
        """Call as the application itself, with the generic token. No I/O; errors come with the first call."""
        options = conf.deployment(deployment)
        return cls(options, bearer.of_application(options))

    @property
    def bearer(self) -> BearerPolicy:
        """What a call that is made now is signed with."""
        return self.source()

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if not bearer.is_ours(self.deployment, request.url or ""):
            raise InvalidURL(bearer.NOT_OURS)
        signer = self.bearer
        request.headers["Authorization"] = _Signature.of(run(signer.credential(BLOCKING)), signer, self)
        if "Cache-Control" not in request.headers:
            # A session that caches would keep one user's answer, and give it to another.
            request.headers["Cache-Control"] = "no-store"
        if self._hook not in request.hooks["response"]:
            request.hooks["response"].append(self._hook)
        return request

    def __reduce__(self) -> NoReturn:
        raise TypeError(bearer.NO_PICKLES)

    def after(self, response: requests.Response, **kwargs: Any) -> requests.Response:
        """Look at every response, those on the way of a redirect included; a response hook of ``requests``."""
        request = response.request
        sent = request.headers.get("Authorization")
        # Somebody else may have signed this request since, and copies of it share their hooks.
        if not isinstance(sent, _Signature) or sent.auth is not self:
            return response
        if response.status_code == 401 and bearer.is_ours(self.deployment, request.url or ""):
            response = self._renew_and_replay(response, sent, kwargs)
        if response.is_redirect and _target_origin(response) != self.deployment.origin:
            # Removed before requests copies the headers to the next hop, which may be anywhere.
            request.headers.pop("Authorization", None)
        return response

    def _renew_and_replay(
        self, response: requests.Response, sent: "_Signature", kwargs: dict[str, Any]
    ) -> requests.Response:
        try:
            credential = run(sent.signer.replacement(sent.token, BLOCKING))
        except BaseException:
            # Nobody gets to see it, so nobody else would give its connection back.
            response.close()
            raise
        if credential is None or not _rewind(response.request):
            return response
        replayed = self._replay(response, _Signature.of(credential, sent.signer, self), kwargs)
        run(sent.signer.note_replay(replayed.status_code, credential, BLOCKING))
        return replayed

    def _replay(
        self, response: requests.Response, signature: "_Signature", kwargs: dict[str, Any]
    ) -> requests.Response:
        leave(response)
        # The request itself is signed anew, not a copy: what a later redirect copies must not be the old token.
        again: Any = response.request
        extract_cookies_to_jar(again._cookies, again, response.raw)  # type: ignore[no-untyped-call]
        again.headers.pop("Cookie", None)
        again.prepare_cookies(again._cookies)
        again.headers["Authorization"] = signature
        began = time.perf_counter()
        replayed: requests.Response = response.connection.send(again, **kwargs)
        replayed.elapsed = timedelta(seconds=time.perf_counter() - began)
        replayed.history.append(response)
        return replayed


class _Signature(Secret):
    """The value of ``Authorization``, which knows who put it on the request."""

    __slots__ = ("auth", "signer", "token")

    auth: AIRiskAuth
    signer: BearerPolicy
    token: Secret

    @classmethod
    def of(cls, credential: Credential, signer: BearerPolicy, auth: AIRiskAuth) -> Self:
        signature = cls(credential.header)
        signature.auth, signature.signer, signature.token = auth, signer, credential.token
        return signature


class _Hook:
    """What :class:`AIRiskAuth` leaves on a request. A copy that left the process renews nothing."""

    def __init__(self, auth: AIRiskAuth | None = None) -> None:
        self._auth = auth

    def __call__(self, response: requests.Response, **kwargs: Any) -> requests.Response:
        return response if self._auth is None else self._auth.after(response, **kwargs)

    def __deepcopy__(self, _memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[type["_Hook"], tuple[()]]:
        return _Hook, ()


class AIRiskSession(Session):
    """A ``requests.Session`` that calls one deployment: paths are joined to ``BASE_URL``, ``API_TIMEOUT`` holds.

    Every HTTP status comes back as a response. Besides what :class:`AIRiskAuth` raises, a call raises
    ``AIRiskUnavailable`` where the transport failed. A redirect to another origin is handed back, not followed.
    """

    #: Whether the connections of :attr:`aclient` outlive a call: not where each call has an event loop of its own.
    keeps_async_connections = True

    def __init__(self, auth: AIRiskAuth) -> None:
        super().__init__()
        self.deployment = auth.deployment
        self.auth = auth
        self._source = auth.source
        self._signer: BearerPolicy | None = None
        self._winds_down = False
        self.headers.update({"Accept": "application/json", "User-Agent": USER_AGENT})
        # Once, here, and never .netrc: requests would look at all of it for every call.
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
        """Call as the user whom ``request.user`` names at the moment of each call; ``request.airisk`` does."""
        options = conf.deployment(deployment)
        return cls(AIRiskAuth(options, bearer.of_visitor(options, request)))

    @cached_property
    def aclient(self) -> "AsyncAIRiskClient":
        """The asynchronous side: the same owner's ``httpx2`` client, made on first use (extra ``async``)."""
        from .async_client import AsyncAIRiskClient

        return AsyncAIRiskClient(self.deployment, self._source, keep_alive=self.keeps_async_connections)

    async def aclose(self) -> None:
        """Close the connections of both sides."""
        self.close()
        if "aclient" in vars(self):
            await self.aclient.aclose()

    def wind_down(self) -> None:
        """Close what is idle, and keep no connection from now on: what streams is read to its end, and closed then."""
        self.close()
        self._winds_down = True

    async def awind_down(self) -> None:
        """As :meth:`wind_down`, for the asynchronous side."""
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
            # Cookies that AIRisk set for one user are not another's.
            self.cookies.clear()
        self._signer = signer
        return super().prepare_request(request)

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        """Send with ``API_TIMEOUT`` where the caller gave none."""
        if not bearer.is_ours(self.deployment, request.url or ""):
            raise InvalidURL(bearer.NOT_OURS)
        if kwargs.get("timeout") is None:
            kwargs["timeout"] = self.deployment.api_timeout
        failure = CallFailure(requests.RequestException, HTTPError)
        with failure:
            response = super().send(request, **kwargs)
        if failure.is_a(requests.TooManyRedirects):
            raise AIRiskInvalidResponse(bearer.ENDLESS)
        if failure.cause:
            raise AIRiskUnavailable(f"AIRisk could not be reached ({failure.cause}).")
        if self._winds_down:
            # Leaves the connection to the response alone.
            self.close()
        return response

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Follow redirects within the deployment's origin only."""
        if not resp.is_redirect or _target_origin(resp) != self.deployment.origin:
            return None
        try:
            return super().get_redirect_target(resp)
        except UnicodeError:
            return None

    def resolve_redirects(self, resp: Any, req: Any, *args: Any, **options: Any) -> Iterator[requests.Response]:
        """Follow redirects without reading what else they say, which may be without end."""
        if not resp.is_redirect:
            return
        if options.get("yield_requests"):
            # Only asked where this one leads. Its body is the caller's.
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
    """Return a copy with nothing to read or close, but the cookies that came."""
    copy: Any = requests.Response()
    copy.status_code, copy.url, copy.request = response.status_code, response.url, response.request
    copy.headers = response.headers
    copy.raw = SimpleNamespace(_original_response=getattr(response.raw, "_original_response", None))
    copy._content, copy._content_consumed = b"", True
    return copy  # type: ignore[no-any-return]


def _target_origin(response: requests.Response) -> tuple[str, str, int] | None:
    try:
        return origin_of(urljoin(response.url, response.headers["Location"]))
    except ValueError:
        return None


def _rewind(request: requests.PreparedRequest) -> bool:
    """Make a sent body ready to be sent again; false for one that cannot be, such as a generator."""
    if request.body is None or isinstance(request.body, str | bytes):
        return True
    if not isinstance(request._body_position, int):
        return False
    try:
        rewind_body(request)
    except requests.exceptions.UnrewindableBodyError:
        return False
    return True
