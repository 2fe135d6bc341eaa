"""Connections of ``urllib3`` with limits that hold for a whole step of a call.

A timeout of ``urllib3`` starts again with every address of a host and with every byte of a response: four unreachable
addresses take four times as long as one, and a server that sends a byte now and then can hold its caller for ever. Here
the name lookup, all addresses and TLS share one limit, the response headers have another, and a call can have a
deadline for everything.
"""

import http.client
import re
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from urllib3.exceptions import (
    ConnectTimeoutError,
    LocationParseError,
    NewConnectionError,
)
from urllib3.util import connection as urllib3_connection

from . import sockets
from .limits import SHORTEST, CallTimeout, TimedSocket

if TYPE_CHECKING:
    from collections.abc import Callable

#: A request body is sent in chunks of this many bytes, each with the read timeout: a large file may take longer.
_CHUNK: Final = 64 * 1024
#: The modules whose connections are extended. A test double's connections are left as they are.
_KNOWN: Final = ("urllib3.connection", "urllib3.contrib.socks")


class TimedResponse(http.client.HTTPResponse):
    """A response whose body can be waited for.

    Skips every interim response (RFC 9110, section 15.2); ``http.client`` only skips status 100.
    """

    def set_deadline(self, deadline: float) -> None:
        """Let reading raise ``TimeoutError`` after this time on the monotonic clock."""
        sock = self._socket
        if sock is not None:
            sock.deadline = deadline

    def has_data(self, seconds: float) -> bool:
        """Tell whether a part of the body, or its end, can be read now; wait for it for at most this long."""
        sock = self._socket
        if sock is None:
            return True
        buffered = sock.buffered(self.fp)
        if self.chunked and not self.chunk_left:
            # The line break after a chunk arrives with the chunk, and says nothing about the next one.
            is_enough = re.match(rb"(\r\n)?[^\r\n]+\r?\n", buffered) is not None
        else:
            is_enough = bool(buffered)
        return is_enough or sock.wait(seconds)

    @property
    def _socket(self) -> TimedSocket | None:
        return getattr(getattr(self.fp, "raw", None), "sock", None)

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 101 < status < 200:
                return version, status, reason
            http.client.parse_headers(self.fp)


class TimedConnection:
    """A mixin that :func:`timed_connection` adds to a connection class of ``urllib3``."""

    #: How many responses came on this connection.
    _answers = 0
    _call: CallTimeout | None = None
    _connected_by: float | None = None

    if TYPE_CHECKING:
        sock: Any
        timeout: Any
        host: str
        port: int
        _dns_host: str
        socket_options: Any

    def connect(self) -> None:
        self._answers = 0
        self._connected_by = None if self.timeout is None else time.monotonic() + self.timeout
        super().connect()  # type: ignore[misc]
        self.sock = TimedSocket(self.sock)

    def _new_conn(self) -> Any:
        try:
            sock = self._open()
        except UnicodeError:
            raise LocationParseError(f"'{self.host}', label empty or too long") from None
        except sockets.NotResolved as error:
            words = f"Failed to resolve '{self.host}' ({error.args[0]})"
            raise NewConnectionError(self, words) from error  # type: ignore[arg-type]
        except TimeoutError as error:
            words = f"Connection to {self.host} timed out. (connect timeout={self.timeout})"
            raise ConnectTimeoutError(self, words) from error
        except OSError as error:
            words = f"Failed to establish a new connection: {error}"
            raise NewConnectionError(self, words) from error  # type: ignore[arg-type]
        if self._connected_by is not None:
            # TLS gets the rest of the time.
            sock.settimeout(max(self._connected_by - time.monotonic(), SHORTEST))
        sys.audit("http.client.connect", self, self.host, self.port)
        return sock

    def _open(self) -> Any:
        open_it: Callable[[], Any] = super()._new_conn  # type: ignore[misc]
        replaced = urllib3_connection.create_connection.__module__ != urllib3_connection.__name__
        if replaced or hasattr(self, "_socks_options"):
            # A SOCKS proxy, or the site's own function, connects in its own way.
            return sockets.run_with_timeout(open_it, self.timeout)
        family = urllib3_connection.allowed_gai_family()
        return sockets.connect(self._dns_host.strip("[]"), self.port, family, self.socket_options or (), self.timeout)

    def _tunnel(self) -> None:
        plain = self.sock
        self.sock = TimedSocket(plain)
        self.sock.deadline = self._connected_by
        super()._tunnel()  # type: ignore[misc]
        self.sock = plain

    def request(self, *args: Any, **kwargs: Any) -> Any:
        self._call = getattr(self.timeout, "call", None)
        if self._call is not None and self.sock is not None:
            self._call.was_reused = self._answers > 0
            self._call.use(self.sock)
            # Already connected, so the read timeout applies; urllib3 would set the connect timeout first.
            self.timeout = self._call.read_timeout
        return super().request(*args, **kwargs)  # type: ignore[misc]

    def send(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        """Send in chunks, each with the read timeout: a receiver may pause for longer than connecting may take."""
        if self.sock is None or self._call is None:
            result = super().send(data, *args, **kwargs)  # type: ignore[misc]
            if self._call is not None:
                self._call.use(self.sock)
            return result
        result = None
        for chunk in _chunks(data):
            self.sock.settimeout(self._call.read_timeout)
            result = super().send(chunk, *args, **kwargs)  # type: ignore[misc]
        return result

    def getresponse(self, *args: Any, **kwargs: Any) -> Any:
        sock, call = self.sock, self._call
        limit, deadline = (self.timeout, None) if call is None else (call.read_timeout, call.deadline)
        sock.call = call
        sock.deadline = deadline if deadline is not None or limit is None else time.monotonic() + limit
        response = super().getresponse(*args, **kwargs)  # type: ignore[misc]
        self._answers += 1
        if deadline is None:
            # The headers are complete. The body may take any time, as long as something arrives.
            sock.deadline = None
            with suppress(OSError):
                sock.settimeout(limit)
        return response


@cache
def timed_connection(base: Any) -> Any:
    """Return a connection class with time limits; an unknown class, such as a test double's, is returned as it is."""
    if base.__module__ not in _KNOWN:
        return base
    # If urllib3-future has replaced urllib3, its connections are not based on http.client.
    standard = issubclass(base, http.client.HTTPConnection)
    members = {"response_class": TimedResponse} if standard else {}
    return type(f"Timed{base.__name__}", (TimedConnection, base), members)


def _chunks(data: Any) -> Iterator[Any]:
    if not isinstance(data, bytes) or len(data) <= _CHUNK:
        yield data
        return
    view = memoryview(data)
    for start in range(0, len(data), _CHUNK):
        yield view[start : start + _CHUNK]
