"""The only caller of AIRisk's two OAuth endpoints, and the only place that sends the client secret.

Nothing is followed, nothing is kept between calls but the connection, and no request is sent twice: an authorization
code must not be. Every failure to get an answer is ``AIRiskUnavailable``, raised ``from None``, for an exception of
``requests`` carries the whole request.
"""

import http.client
import io
import logging
import os
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from . import protocol
from .events import log
from .exceptions import AIRiskUnavailable
from .protocol import Reply

if TYPE_CHECKING:
    from .conf import Deployment
    from .protocol import Call, Calls, Result

logger = logging.getLogger("airisk_oauth.transport")

USER_AGENT: Final = "django-airisk-oauth"
HEADERS: Final = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": USER_AGENT}

#: When this thread's flow has to be over, on the monotonic clock.
_deadline: ContextVar[float] = ContextVar("airisk_oauth_deadline")


class OAuthClient(AbstractContextManager["OAuthClient"]):
    """Calls the OAuth endpoints of one deployment; connections are kept until it is closed."""

    def __init__(self, deployment: "Deployment") -> None:
        self.deployment = deployment
        self._adapter = _TimedAdapter()
        self._environment = environment_for(deployment.base_url)

    def __exit__(self, *exc: object) -> None:
        self._adapter.close()

    def run(self, calls: "Calls[Result]") -> "Result":
        """Send these calls, and return what they come to, within ``TIMEOUT``'s read seconds for all of them together.

        :raises AIRiskError: AIRisk could not be reached, or what the calls themselves make of a reply.
        """
        _deadline.set(time.monotonic() + self.deployment.timeout[1])
        try:
            call = next(calls)
            while True:
                call = calls.send(self._send(call))
        except StopIteration as end:
            result: Result = end.value
            return result

    def _send(self, call: "Call") -> Reply:
        request = requests.PreparedRequest()
        request.prepare(method=call.method, url=call.url, headers=HEADERS, data=call.form)
        connect, _read = self.deployment.timeout
        began = time.monotonic()
        left = max(_deadline.get() - began, 0.001)
        failure = ""
        try:
            # The adapter, not a session: nothing is redirected, and no cookie of one user reaches another's flow.
            with (
                untraced(),
                self._adapter.send(
                    request, stream=True, timeout=(min(connect, left), left), **self._environment
                ) as response,
            ):
                body = _limited_body(response)
        except (OSError, HTTPError) as error:
            failure = type(error).__name__
        except BaseException as error:  # noqa: BLE001 - it is raised again
            # A worker's time limit, say. Crash reports show frames, and those of the call hold the client secret.
            raise error.with_traceback(None) from None
        if failure:
            tell(self.deployment, call, began, failure)
            # Here, where the caught exception and the request that it carries are gone, not only hidden.
            raise unanswered(failure) from None
        tell(self.deployment, call, began, response.status_code)
        return Reply.of(response.status_code, response.headers, body)


def tell(deployment: "Deployment", call: "Call", began: float, outcome: int | str) -> None:
    """Log how a call ended that began at this monotonic second: with a status, or by an exception of this name."""
    failed = isinstance(outcome, str)
    what = "did not answer (%(error)s)" if failed else "answered with status %(airisk_status)s"
    ended: dict[str, Any] = {"error" if failed else "airisk_status": outcome}
    log(
        logger,
        logging.DEBUG,
        "oauth.called",
        f"AIRisk's %(endpoint)s endpoint {what} after %(duration).3f s",
        deployment=deployment.alias,
        endpoint="authorization" if call.method == "GET" else "token",
        duration=round(time.monotonic() - began, 3),
        **ended,
    )


def unanswered(failure: str) -> AIRiskUnavailable:
    """Return the error for a call that ended with this exception, of which no more than the name is told."""
    return AIRiskUnavailable(f"AIRisk did not answer ({failure}).")


def untraced() -> AbstractContextManager[Any]:
    """Let OpenTelemetry make no span of a call whose URL carries a state and a userid.

    Not imported here: where nothing has loaded it, nothing traces.
    """
    opentelemetry = sys.modules.get("opentelemetry.instrumentation.utils")
    suppressed: AbstractContextManager[Any] = getattr(opentelemetry, "suppress_http_instrumentation", nullcontext)()
    return suppressed


def environment_for(url: str) -> dict[str, Any]:
    """Return what the environment says of proxies and CA bundle for this URL, as ``requests`` would read it."""
    bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    return {"proxies": requests.utils.get_environ_proxies(url), "verify": bundle or True}


def _limited_body(response: requests.Response) -> bytes | None:
    body = b""
    for chunk in response.iter_content(4096):
        body += chunk
        if len(body) > protocol.MAX_BODY:
            return None
    return body


class _TimedReader(io.RawIOBase):
    """Reads a socket until the deadline, and no longer.

    A read timeout starts anew with every byte, so a server that drips would hold its caller for ever.
    """

    def __init__(self, sock: Any) -> None:
        self._socket = sock
        self._file = sock.makefile("rb", buffering=0)
        self._ends = _deadline.get()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TimeoutError("AIRisk's answer took too long.")
        self._socket.settimeout(left)
        read: int | None = self._file.readinto(buffer)
        return read

    def close(self) -> None:
        self._file.close()
        super().close()


class _TimedResponse(http.client.HTTPResponse):
    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self.fp = io.BufferedReader(_TimedReader(sock))


class _TimedHTTPConnection(HTTPConnection):
    response_class = _TimedResponse


class _TimedHTTPSConnection(HTTPSConnection):
    response_class = _TimedResponse


class _TimedHTTPPool(HTTPConnectionPool):
    ConnectionCls = _TimedHTTPConnection


class _TimedHTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _TimedHTTPSConnection


class _TimedAdapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        _time(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> PoolManager:
        manager: PoolManager = super().proxy_manager_for(*args, **kwargs)
        _time(manager)
        return manager


def _time(manager: PoolManager) -> None:
    manager.pool_classes_by_scheme = {"http": _TimedHTTPPool, "https": _TimedHTTPSPool}
