"""The way of ``requests`` to AIRisk: an adapter whose connections end on time and stay within their process."""

import os
import time
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import requests
from requests.adapters import HTTPAdapter
from requests.sessions import SessionRedirectMixin
from requests.utils import select_proxy
from urllib3.exceptions import HTTPError, ProtocolError, SSLError

from .deadline import TimedConnection, timed_connection
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

__all__ = ["Session", "TimedAdapter", "leave"]

_DRAINED: Final = 64 * 1024


class TimedAdapter(HTTPAdapter):
    """An ``HTTPAdapter`` whose calls end on time, and whose connections are not shared with a forked process.

    Besides what ``requests`` raises, nothing is raised for the wire: what ``requests`` lets through of ``urllib3`` and
    others becomes a ``requests.ConnectionError``. What a signal handler raised meanwhile is raised as it was.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._process = os.getpid()
        super().__init__(*args, **kwargs)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        _time(self.poolmanager)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> "PoolManager":
        manager: PoolManager = super().proxy_manager_for(*args, **kwargs)
        _time(manager)
        return manager

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        if self._process != os.getpid():
            # Our parent uses the same sockets, and would get our answers.
            self._process = os.getpid()
            self.__init__()  # type: ignore[misc]
        try:
            return super().send(request, *args, **kwargs)
        except (OSError, HTTPError, ValueError) as error:
            failure = self._failure(error, request, kwargs)
        try:
            raise failure
        finally:
            # An error that its own traceback leads back to would stay in memory.
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
        of_the_wire = isinstance(error, OSError | HTTPError) and not isinstance(error, requests.RequestException)
        return requests.ConnectionError(error, request=request) if of_the_wire else error


def leave(response: requests.Response) -> None:
    """Give back the connection of a response whose body nobody wants to read.

    What is left of the body is read for this, up to 64 KiB in a second. Of more, or where the connection is not one of
    ours, it is closed.
    """
    sock = getattr(getattr(response.raw, "connection", None), "sock", None)
    if isinstance(sock, TimedSocket):
        sock.ends = time.monotonic() + 1
        try:
            response.raw.read(_DRAINED, decode_content=False)
        except (HTTPError, OSError) as error:
            own = interruption(error)
            if own is not None:
                raise own from None
    response.close()


class _TimedPool:
    """What is put before a pool of ``urllib3``, see :func:`_timed_pool`."""

    @property
    def ConnectionCls(self) -> Any:  # noqa: N802 - urllib3's name
        """Looked up each time: a test double may stand there for a while."""
        return timed_connection(super().ConnectionCls)  # type: ignore[misc]

    def urlopen(self, *args: Any, timeout: "Timeout", headers: Any, **kwargs: Any) -> Any:
        """Send, and send what only reads once more where a connection that was used before dies without an answer."""
        if not issubclass(self.ConnectionCls, TimedConnection):
            # A double may write them down, and knows no strings but plain ones. Elsewhere ours hide from crash reports.
            headers = {name: str(value) for name, value in headers.items()}
        kwargs["headers"] = headers
        if isinstance(timeout, CallTimeout):
            return super().urlopen(*args, timeout=timeout, **kwargs)  # type: ignore[misc]
        while True:
            call = CallTimeout(timeout.connect_timeout, timeout.read_timeout)
            try:
                return super().urlopen(*args, timeout=call, **kwargs)  # type: ignore[misc]
            except (ProtocolError, SSLError):
                # Ends with a new connection at the latest: one that has died is not kept.
                if not call.has_lost_connection or kwargs.get("method") not in REPEATABLE or kwargs.get("body"):
                    raise


def _time(manager: "PoolManager") -> None:
    pools = manager.pool_classes_by_scheme
    manager.pool_classes_by_scheme = {scheme: _timed_pool(pool) for scheme, pool in pools.items()}


@cache
def _timed_pool(base: Any) -> Any:
    return base if issubclass(base, _TimedPool) else type(f"Timed{base.__name__}", (_TimedPool, base), {})
