"""An adapter for ``requests`` whose calls obey time limits, and whose connections stay within their process."""

import os
import time
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import requests
from requests.adapters import HTTPAdapter
from requests.sessions import SessionRedirectMixin
from requests.utils import select_proxy
from urllib3.exceptions import HTTPError, ProtocolError, SSLError

from .deadline import TimedConnection, TimedResponse, timed_connection
from .environment import obstacle
from .failures import interruption
from .limits import REPEATABLE, CallTimeout, TimedSocket

if TYPE_CHECKING:
    from requests import Session
    from urllib3 import PoolManager
    from urllib3.util import Timeout
else:
    # As requests defines it. A site may have replaced it with one that caches, which would give one user's response to
    # another.
    Session = next(each for each in SessionRedirectMixin.__subclasses__() if each.__module__ == "requests.sessions")

__all__ = ["Session", "TimedAdapter", "TimedResponse", "leave", "timed_response"]

_MAX_DRAINED: Final = 64 * 1024


class TimedAdapter(HTTPAdapter):
    """An ``HTTPAdapter`` whose calls obey time limits, and whose connections are not shared with a forked process.

    Network failures are only raised as exceptions of ``requests``: where it lets one of ``urllib3``'s through, that
    becomes a ``requests.ConnectionError``. What a signal handler raises during a call is raised as it is.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._process = os.getpid()
        super().__init__(*args, **kwargs)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        _use_timed_pools(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> "PoolManager":
        manager: PoolManager = super().proxy_manager_for(*args, **kwargs)
        _use_timed_pools(manager)
        return manager

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        if self._process != os.getpid():
            # The parent process uses the same sockets, and would get our responses.
            self._process = os.getpid()
            self.__init__()  # type: ignore[misc]
        try:
            return super().send(request, *args, **kwargs)
        except (OSError, HTTPError, ValueError) as error:
            failure = self._failure(error, request, kwargs)
        try:
            raise failure
        finally:
            # The traceback holds this frame, and the frame the error: without this it would stay in memory.
            del failure

    def _failure(self, error: Exception, request: requests.PreparedRequest, options: dict[str, Any]) -> BaseException:
        own = interruption(error)
        if own is not None:
            return own
        if isinstance(error, requests.RequestException) and not isinstance(error, ValueError):
            return error
        proxy = select_proxy(str(request.url), options.get("proxies"))
        named = obstacle(proxy, options.get("verify", True))
        if named is not None:
            return named
        is_network = isinstance(error, OSError | HTTPError) and not isinstance(error, requests.RequestException)
        return requests.ConnectionError(error, request=request) if is_network else error


def timed_response(response: requests.Response) -> TimedResponse | None:
    """Return what can be asked to wait for the body, where the connection is one of ours on ``http.client``."""
    original = getattr(response.raw, "_original_response", None)
    return original if isinstance(original, TimedResponse) else None


def leave(response: requests.Response) -> None:
    """Release the connection of a response whose body will not be read.

    The rest of the body is read so that the connection can be used again: at most 64 KiB, for at most a second. If
    there is more, or the connection is not one of ours, the connection is closed.
    """
    sock = getattr(getattr(response.raw, "connection", None), "sock", None)
    if isinstance(sock, TimedSocket):
        sock.deadline = time.monotonic() + 1
        try:
            response.raw.read(_MAX_DRAINED, decode_content=False)
        except (HTTPError, OSError) as error:
            own = interruption(error)
            if own is not None:
                raise own from None
    response.close()


class _TimedPool:
    """A mixin that :func:`_timed_pool` adds to a connection pool class of ``urllib3``."""

    @property
    def ConnectionCls(self) -> Any:  # noqa: N802 - urllib3's name
        """Looked up for each connection, because a test double may have replaced the class for a while."""
        return timed_connection(super().ConnectionCls)  # type: ignore[misc]

    def urlopen(self, *args: Any, timeout: "Timeout", headers: Any, **kwargs: Any) -> Any:
        """Send; if a reused connection was closed without an answer, send a request that only reads again."""
        if not issubclass(self.ConnectionCls, TimedConnection):
            # As plain strings for a test double, which may record them. A Secret hides itself from crash reports.
            headers = {name: str(value) for name, value in headers.items()}
        kwargs["headers"] = headers
        if isinstance(timeout, CallTimeout):
            return super().urlopen(*args, timeout=timeout, **kwargs)  # type: ignore[misc]
        while True:
            call = CallTimeout(timeout.connect_timeout, timeout.read_timeout)
            try:
                return super().urlopen(*args, timeout=call, **kwargs)  # type: ignore[misc]
            except (ProtocolError, SSLError):
                # This ends with a new connection at the latest, because a closed one is not kept.
                if not call.has_lost_connection or kwargs.get("method") not in REPEATABLE or kwargs.get("body"):
                    raise


def _use_timed_pools(manager: "PoolManager") -> None:
    pools = manager.pool_classes_by_scheme
    manager.pool_classes_by_scheme = {scheme: _timed_pool(pool) for scheme, pool in pools.items()}


@cache
def _timed_pool(base: Any) -> Any:
    return base if issubclass(base, _TimedPool) else type(f"Timed{base.__name__}", (_TimedPool, base), {})
