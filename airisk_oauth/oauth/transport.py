"""Calls AIRisk's two OAuth endpoints with ``requests``; only the transports send the client secret.

No redirect is followed, nothing but the connection is kept between calls, and no request is sent twice, because an
authorization code must not be.
"""

import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, Concatenate

import requests
from django.utils import timezone
from urllib3.exceptions import HTTPError

from ..exceptions import AIRiskUnavailable
from ..wire.adapter import Session, TimedAdapter
from ..wire.environment import proxies_and_ca_bundle, suppress_tracing
from ..wire.failures import CallFailure
from ..wire.limits import CallTimeout
from .calls import HEADERS, Arguments, Result, Send, log_call, response_of, run, unanswered
from .messages import MAX_BODY, ConnectionLost, OAuthRequest, OAuthResponse

if TYPE_CHECKING:
    from .deployment import Deployment


class OAuthClient(AbstractContextManager["OAuthClient"]):
    """Calls the OAuth endpoints of one deployment; connections are kept until it is closed."""

    def __init__(self, deployment: "Deployment") -> None:
        self.deployment = deployment
        self._environment = proxies_and_ca_bundle(deployment.base_url)
        self._session = _PlainSession(self._environment)
        self._keeps_connections = True

    def __exit__(self, *exc: object) -> None:
        self._session.close()

    def run(
        self,
        flow: Callable[Concatenate[Send, Arguments], Coroutine[Any, Any, Result]],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        """Run a flow of :mod:`.code_flow` with these arguments, and return its result.

        All of its calls together get ``TIMEOUT``'s second number of seconds.

        :raises AIRiskError: AIRisk could not be reached, or what the flow raises.
        """
        ends = time.monotonic() + self.deployment.timeout[1]

        async def send(request: OAuthRequest) -> OAuthResponse:
            return self._send(request, ends)

        try:
            return run(flow(send, *args, **kwargs))
        except ConnectionLost as error:
            lost = str(error)
        raise AIRiskUnavailable(lost)

    def _send(self, request: OAuthRequest, ends: float) -> OAuthResponse:
        prepared = requests.PreparedRequest()
        prepared.prepare(method=request.method, url=request.url, headers=HEADERS, data=request.form)
        began = time.monotonic()
        timeout = CallTimeout(self.deployment.timeout[0], self.deployment.timeout[1], ends)
        failure = CallFailure(OSError, ValueError, HTTPError, hidden=(BaseException,))
        with (
            failure,
            suppress_tracing(),
            self._connections() as session,
            session.send(prepared, timeout=timeout) as reply,
        ):
            body = _limited_body(reply)
        if failure.cause:
            log_call(self.deployment, request, began, failure.name)
            if timeout.has_lost_connection and not failure.is_a(requests.Timeout):
                # Whatever closes connections without notice would do so again.
                self._keeps_connections = False
                raise ConnectionLost(str(unanswered(failure.cause)))
            raise unanswered(failure.cause)
        log_call(self.deployment, request, began, reply.status_code)
        return response_of(reply.status_code, reply.headers, body, now=timezone.now())

    @contextmanager
    def _connections(self) -> Iterator["_PlainSession"]:
        """Lend the session that keeps its connections, or a new one for this call only."""
        if self._keeps_connections:
            yield self._session
            return
        with _PlainSession(self._environment) as session:
            yield session


class _PlainSession(Session):
    """Sends a request as it is: no redirect is followed, and no cookie of one user reaches another's flow.

    A session and not only its adapter, because test doubles replace ``Session.send``, and must see every request.
    """

    def __init__(self, environment: dict[str, Any]) -> None:
        super().__init__()
        self.trust_env = False
        self.proxies, self.verify = environment["proxies"], environment["verify"]
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        adapter = TimedAdapter()
        self.adapters = {"https://": adapter, "http://": adapter}

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        response: requests.Response = super().send(request, stream=True, allow_redirects=False, **options)
        return response

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return none: ``requests`` would read a redirect's whole body to find its target."""


@contextmanager
def looking(
    deployment: "Deployment", url: str, headers: dict[str, str], timeout: tuple[float, float]
) -> Iterator[requests.Response]:
    """Lend the response to a GET of this URL, its body unread, sent as calls and renewals are.

    :param timeout: seconds to connect, and to read the headers.
    :raises requests.RequestException: no response arrived.
    """
    with _PlainSession(proxies_and_ca_bundle(deployment.base_url)) as session:
        request = requests.Request("GET", url, headers=headers).prepare()
        with session.send(request, timeout=timeout) as response:
            yield response


def _limited_body(response: requests.Response) -> bytes | None:
    body = b""
    for chunk in response.iter_content(4096):
        body += chunk
        if len(body) > MAX_BODY:
            return None
    return body
