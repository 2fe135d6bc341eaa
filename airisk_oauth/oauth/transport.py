"""The only caller of AIRisk's two OAuth endpoints, and the only place that sends the client secret.

Nothing is followed, nothing is kept between calls but the connection, and no request is sent twice: an authorization
code must not be. Every failure to get an answer is ``AIRiskUnavailable``, raised ``from None``, for an exception of
``requests`` carries the whole request.
"""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

import requests
from django.utils import timezone
from requests.sessions import SessionRedirectMixin
from urllib3.exceptions import HTTPError

from ..exceptions import AIRiskUnavailable
from ..wire.adapter import TimedAdapter
from ..wire.environment import described, interruption, proxies_and_ca_bundle, suppress_tracing
from ..wire.limits import CallTimeout
from .calls import HEADERS, log_call, unanswered
from .messages import MAX_BODY, ConnectionLost, OAuthResponse

if TYPE_CHECKING:
    from requests import Session

    from .deployment import Deployment
    from .messages import Calls, OAuthRequest, Result
else:
    # As requests defines it: a site may have put one in its place that keeps answers on disk.
    Session = next(each for each in SessionRedirectMixin.__subclasses__() if each.__module__ == "requests.sessions")


class OAuthClient(AbstractContextManager["OAuthClient"]):
    """Calls the OAuth endpoints of one deployment; connections are kept until it is closed."""

    def __init__(self, deployment: "Deployment") -> None:
        self.deployment = deployment
        self._environment = proxies_and_ca_bundle(deployment.base_url)
        self._session = _PlainSession(self._environment)
        self._keeps_connections = True

    def __exit__(self, *exc: object) -> None:
        self._session.close()

    def run(self, calls: "Calls[Result]") -> "Result":
        """Send these calls, and return what they come to, within ``TIMEOUT``'s read seconds for all of them together.

        :raises AIRiskError: AIRisk could not be reached, or what the calls themselves make of a reply.
        """
        ends = time.monotonic() + self.deployment.timeout[1]
        lost = ""
        try:
            call = next(calls)
            while True:
                try:
                    reply = self._send(call, ends)
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

    def _send(self, call: "OAuthRequest", ends: float) -> OAuthResponse:
        request = requests.PreparedRequest()
        request.prepare(method=call.method, url=call.url, headers=HEADERS, data=call.form)
        began = time.monotonic()
        timeout = CallTimeout(self.deployment.timeout[0], self.deployment.timeout[1], ends)
        failure = cause = ""
        try:
            with suppress_tracing(), self._connections() as session, session.send(request, timeout=timeout) as response:
                body = _limited_body(response)
        except (OSError, ValueError, HTTPError) as error:
            own = interruption(error)
            if own is not None:
                raise own.with_traceback(None) from None
            failure, cause = type(error).__name__, described(error)
            is_late = isinstance(error, requests.Timeout)
        except BaseException as error:  # noqa: BLE001 - it is raised again
            # A worker's time limit, say. Crash reports show frames, and those of the call hold the client secret.
            raise error.with_traceback(None) from None
        if failure:
            log_call(self.deployment, call, began, failure)
            # Here, where the caught exception and the request that it carries are gone, not only hidden.
            if timeout.has_lost_connection and not is_late:
                raise ConnectionLost(str(unanswered(cause))) from None
            raise unanswered(cause) from None
        log_call(self.deployment, call, began, response.status_code)
        return OAuthResponse.of(response.status_code, response.headers, body, now=timezone.now())

    @contextmanager
    def _connections(self) -> Iterator["_PlainSession"]:
        """Lend the session whose connections are used again, or one for this call only."""
        if self._keeps_connections:
            yield self._session
            return
        with _PlainSession(self._environment) as session:
            yield session


class _PlainSession(Session):
    """Sends a request as it is: nothing is followed, and no cookie of one user reaches another's flow.

    A session and not its adapter alone, for this is where test doubles stand; none of them may be passed by.
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
        """Return none: ``requests`` would read a redirect's whole body to look where it leads."""


@contextmanager
def looking(
    deployment: "Deployment", url: str, headers: dict[str, str], timeout: tuple[float, float]
) -> Iterator[requests.Response]:
    """Lend what a GET of this URL brings, its body unread, by the way that calls and renewals take.

    :param timeout: seconds for connecting, and for the headers.
    :raises requests.RequestException: no answer came.
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
