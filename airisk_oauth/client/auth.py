"""``requests`` authentication with AIRisk's bearer token, for a session of your own."""

import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, NoReturn, Self
from urllib.parse import urljoin

import requests
from requests.auth import AuthBase
from requests.cookies import extract_cookies_to_jar
from requests.exceptions import InvalidURL
from requests.utils import rewind_body

from .. import conf
from ..oauth.calls import run
from ..oauth.deployment import Deployment, origin_of
from ..oauth.messages import Secret
from ..tokens.renewal import Credential
from ..tokens.waiting import BLOCKING
from ..wire.adapter import leave
from . import bearer, call_log
from .bearer import BearerPolicy, BearerSource

#: Sends a request, and returns the response before its body.
Send = Callable[[requests.PreparedRequest], Awaitable[requests.Response]]


class AIRiskAuth(AuthBase):
    """Adds ``Authorization: Bearer`` to requests to one deployment (RFC 6750, section 2.1), and keeps the token valid.

    After a 401 the token is renewed and the request is sent once more, unless its body is a stream that cannot be
    rewound; the second response is returned whatever it is. If that is a 401 too, no 401 renews the token for a minute.

    Calls raise what :meth:`~airisk_oauth.tokens.renewal.Renewal.credential` raises, and
    ``requests.exceptions.InvalidURL``, before connecting, for an origin that is not the deployment's.

    :param source: whose token to send; called for each request.
    :ivar logs_calls: whether this logs the calls. A session of ours does so itself, because it also sees those that get
        no response.
    """

    logs_calls = True

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
        """The policy of the owner that a call is made for now."""
        return self.source()

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if not bearer.is_ours(self.deployment, request.url or ""):
            raise InvalidURL(bearer.NOT_OURS)
        signer = self.bearer
        call = call_log.begin(signer, request)
        try:
            credential = run(signer.credential(BLOCKING))
        except BaseException as error:
            call.close(error)
            raise
        request.headers["Authorization"] = _Signature.of(credential, signer, self, call)
        if "Cache-Control" not in request.headers:
            # A session that caches would store one user's response and return it to another.
            request.headers["Cache-Control"] = "no-store"
        if self._hook not in request.hooks["response"]:
            request.hooks["response"].append(self._hook)
        return request

    def __reduce__(self) -> NoReturn:
        raise TypeError(bearer.NO_PICKLES)

    def after(self, response: requests.Response, **kwargs: Any) -> requests.Response:
        """Handle every response, those of redirects included; a response hook of ``requests``."""

        async def send(request: requests.PreparedRequest) -> requests.Response:
            again: requests.Response = response.connection.send(request, **kwargs)
            return again

        call = call_log.call_of(response.request) if self.logs_calls else call_log.UNLOGGED
        try:
            final = run(self.follow_up(response, send))
        except BaseException as error:
            call.close(error)
            raise
        call.note_status(final.status_code)
        call.close()
        return final

    async def follow_up(self, response: requests.Response, send: Send) -> requests.Response:
        """Return the response, or that to the same request with another token.

        :param send: sends a request that is signed, and returns the response.
        """
        request = response.request
        sent = request.headers.get("Authorization")
        # Another auth may have signed this request since, and copies of a request share its hooks.
        if not isinstance(sent, _Signature) or sent.auth is not self:
            return response
        if response.status_code == 401 and bearer.is_ours(self.deployment, request.url or ""):
            response = await self._renew_and_replay(response, sent, send)
        if response.is_redirect and target_origin(response) != self.deployment.origin:
            # Removed before requests copies the headers to the next hop, which may be anywhere.
            request.headers.pop("Authorization", None)
        return response

    async def _renew_and_replay(self, response: requests.Response, sent: "_Signature", send: Send) -> requests.Response:
        try:
            credential = await sent.signer.replacement(sent.token, BLOCKING)
        except BaseException:
            # The caller never sees this response, so nobody else would release its connection.
            response.close()
            raise
        if credential is None or not _rewind(response.request):
            return response
        replayed = await self._replay(response, _Signature.of(credential, sent.signer, self, sent.call), send)
        await sent.signer.note_replay(replayed.status_code, credential, BLOCKING)
        return replayed

    async def _replay(self, response: requests.Response, signature: "_Signature", send: Send) -> requests.Response:
        leave(response)
        # The request itself is signed again, not a copy: a later redirect must not copy the old token.
        again: Any = response.request
        extract_cookies_to_jar(again._cookies, again, response.raw)  # type: ignore[no-untyped-call]
        again.headers.pop("Cookie", None)
        again.prepare_cookies(again._cookies)
        again.headers["Authorization"] = signature
        began = time.perf_counter()
        replayed = await send(again)
        replayed.elapsed = timedelta(seconds=time.perf_counter() - began)
        replayed.history.append(response)
        return replayed


class _Signature(Secret):
    """The value of ``Authorization``, which knows the auth that put it on the request."""

    __slots__ = ("auth", "call", "signer", "token")

    auth: AIRiskAuth
    call: call_log.Unlogged
    signer: BearerPolicy
    token: Secret

    @classmethod
    def of(cls, credential: Credential, signer: BearerPolicy, auth: AIRiskAuth, call: call_log.Unlogged) -> Self:
        if credential.just_renewed:
            call.note_renewal()
        signature = cls(credential.header)
        signature.auth, signature.signer, signature.token, signature.call = auth, signer, credential.token, call
        return signature


class _Hook:
    """The hook that :class:`AIRiskAuth` leaves on a request. A copy in another process renews nothing."""

    def __init__(self, auth: AIRiskAuth | None = None) -> None:
        self._auth = auth

    def __call__(self, response: requests.Response, **kwargs: Any) -> requests.Response:
        return response if self._auth is None else self._auth.after(response, **kwargs)

    def __deepcopy__(self, _memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[type["_Hook"], tuple[()]]:
        return _Hook, ()


def target_origin(response: requests.Response) -> tuple[str, str, int] | None:
    try:
        return origin_of(urljoin(response.url, response.headers["Location"]))
    except ValueError:
        return None


def _rewind(request: requests.PreparedRequest) -> bool:
    """Make a sent body ready to be sent again; false if that is impossible, as for a generator."""
    if request.body is None or isinstance(request.body, str | bytes):
        return True
    if not isinstance(request._body_position, int):
        return False
    try:
        rewind_body(request)
    except requests.exceptions.UnrewindableBodyError:
        return False
    return True
