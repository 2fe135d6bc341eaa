"""The only caller of AIRisk's two OAuth endpoints, and the only place that sends the client secret.

Nothing is followed, nothing is stored between calls but the connection, and no request is sent twice: an
authorization code must not be. Every failure to get an answer is ``AIRiskUnavailable``, raised ``from None``, for an
exception of ``requests`` carries the whole request.
"""

import os
import socket
import threading
import time
from contextlib import AbstractContextManager, suppress
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final

import requests
from django.utils import timezone
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPResponse, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from . import protocol
from .conf import Deployment
from .exceptions import AIRiskInvalidResponse, AIRiskUnavailable
from .protocol import Reply, Secret, TokenGrant

USER_AGENT: Final = "django-airisk-oauth"


class OAuthClient(AbstractContextManager["OAuthClient"]):
    """Calls the OAuth endpoints of one deployment; its connections are kept until it is closed.

    A flow takes ``TIMEOUT``'s read seconds at the most, all its calls together: set :attr:`deadline` anew for each.
    """

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self._session = requests.Session()
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._session.headers.update(
            {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": USER_AGENT}
        )
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, _WatchedAdapter())
        isolate(self._session, deployment.base_url)
        self.start_clock()

    def start_clock(self) -> None:
        """Give the flow that starts now its full time."""
        self.deadline = time.monotonic() + self.deployment.timeout[1]

    def __exit__(self, *exc: object) -> None:
        self._session.close()

    def authorize(self, url: str, *, state: str) -> Secret:
        """Ask for a code without a browser, and return it. Errors: see :func:`protocol.read_authorization`."""
        reply = self._send("GET", url)
        return protocol.read_authorization(reply, redirect_uri=self.deployment.redirect_uri, state=state)

    def exchange(self, code: str, *, userid: str | None) -> TokenGrant:
        """Trade a code for a token, once. Errors: see :func:`protocol.read_token`."""
        deployment = self.deployment
        form = protocol.token_form(
            code=code,
            client_id=deployment.client_id,
            client_secret=deployment.client_secret,
            redirect_uri=deployment.redirect_uri,
            userid=userid,
            extra=deployment.extra_token_params,
        )
        reply = self._send("POST", deployment.token_url, data=form)
        return protocol.read_token(reply, now=timezone.now(), secrets=(code, deployment.client_secret))

    def _send(self, method: str, url: str, **kwargs: Any) -> Reply:
        connect, read = self.deployment.timeout
        left = max(self.deadline - time.monotonic(), 0.001)
        watch = _Watch(left)
        try:
            with (
                watch,
                self._session.request(
                    method,
                    url,
                    allow_redirects=False,
                    stream=True,
                    timeout=(min(connect, left), min(read, left)),
                    **kwargs,
                ) as response,
            ):
                body = _limited_body(response)
        except (OSError, HTTPError) as error:
            raise AIRiskUnavailable(f"AIRisk did not answer ({type(error).__name__}).") from None
        if watch.ran_out:
            raise AIRiskUnavailable("AIRisk did not finish its answer in time.")
        if body is None:
            raise AIRiskInvalidResponse("AIRisk's answer is longer than any token.")
        return Reply(
            response.status_code,
            body,
            response.headers.get("Location"),
            response.headers.get("Content-Type", "").lower(),
            response.headers.get("Retry-After", ""),
        )


def isolate(session: requests.Session, url: str) -> None:
    """Take proxies and CA bundle for this URL from the environment now, and nothing from ``.netrc`` ever."""
    session.proxies = dict(requests.utils.get_environ_proxies(url))
    session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
    session.trust_env = False


def _limited_body(response: requests.Response) -> bytes | None:
    body = b""
    for chunk in response.iter_content(4096):
        body += chunk
        if len(body) > protocol.MAX_BODY:
            return None
    return body


class _Watch(AbstractContextManager["_Watch"]):
    """Shuts the socket of this thread's request when its time is over.

    A read timeout starts anew with every byte, so a server that drips would hold the caller for ever.
    """

    _of_thread = threading.local()

    def __init__(self, seconds: float) -> None:
        self.ran_out = False
        self._socket: Any = None
        self._timer = threading.Timer(seconds, self._run_out)
        self._timer.daemon = True

    def __enter__(self) -> "_Watch":
        self._of_thread.watch = self
        self._timer.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._timer.cancel()
        del self._of_thread.watch

    @classmethod
    def attach(cls, sock: Any) -> None:
        """Put the socket that this thread is about to read from under watch."""
        watch: _Watch = cls._of_thread.watch
        watch._socket = sock
        if watch.ran_out:
            watch._shut()

    def _run_out(self) -> None:
        self.ran_out = True
        self._shut()

    def _shut(self) -> None:
        # The plain socket's shutdown, because that of an SSL socket changes what the reading thread is using.
        with suppress(OSError, TypeError):
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class _WatchedHTTPConnection(HTTPConnection):
    def getresponse(self) -> HTTPResponse:  # type: ignore[override]
        _Watch.attach(self.sock)
        return super().getresponse()


class _WatchedHTTPSConnection(HTTPSConnection):
    def getresponse(self) -> HTTPResponse:  # type: ignore[override]
        _Watch.attach(self.sock)
        return super().getresponse()


class _WatchedHTTPPool(HTTPConnectionPool):
    ConnectionCls = _WatchedHTTPConnection


class _WatchedHTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _WatchedHTTPSConnection


class _WatchedAdapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self._watch(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> PoolManager:
        manager: PoolManager = super().proxy_manager_for(*args, **kwargs)
        self._watch(manager)
        return manager

    @staticmethod
    def _watch(manager: PoolManager) -> None:
        manager.pool_classes_by_scheme = {"http": _WatchedHTTPPool, "https": _WatchedHTTPSPool}
