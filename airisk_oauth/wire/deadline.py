"""Connections of ``urllib3`` that end on time.

A timeout of ``urllib3`` starts anew with every address of a host and with every byte of an answer, so four dead
addresses take four times as long as one, and a server that drips holds its caller for ever. Here the look-up of the
name, all addresses and TLS share one limit, the headers of an answer have another, and a call can have one over it all.
"""

import http.client
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
from .limits import LEAST, CallTimeout, TimedSocket

if TYPE_CHECKING:
    from collections.abc import Callable

#: Bytes of a body that have the read timeout together; a slow line needs more than one of it for a large file.
_PIECE: Final = 64 * 1024
#: Modules whose connections are known. What a test double puts in their place is left as it is.
_KNOWN: Final = ("urllib3.connection", "urllib3.contrib.socks")


class _Response(http.client.HTTPResponse):
    """Takes no interim response (RFC 9110, section 15.2) for the answer, as ``http.client`` does but for 100."""

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 101 < status < 200:
                return version, status, reason
            http.client.parse_headers(self.fp)


class TimedConnection:
    """What :func:`timed_connection` puts before a connection of ``urllib3``."""

    #: Since the connection was opened.
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
            # What is left of it is for TLS.
            sock.settimeout(max(self._connected_by - time.monotonic(), LEAST))
        sys.audit("http.client.connect", self, self.host, self.port)
        return sock

    def _open(self) -> Any:
        open_it: Callable[[], Any] = super()._new_conn  # type: ignore[misc]
        replaced = urllib3_connection.create_connection.__module__ != urllib3_connection.__name__
        if replaced or hasattr(self, "_socks_options"):
            # A proxy's own way to connect, or the site's.
            return sockets.in_time(open_it, self.timeout)
        family = urllib3_connection.allowed_gai_family()
        return sockets.connect(self._dns_host.strip("[]"), self.port, family, self.socket_options or (), self.timeout)

    def _tunnel(self) -> None:
        plain = self.sock
        self.sock = TimedSocket(plain)
        self.sock.ends = self._connected_by
        super()._tunnel()  # type: ignore[misc]
        self.sock = plain

    def request(self, *args: Any, **kwargs: Any) -> Any:
        self._call = getattr(self.timeout, "call", None)
        if self._call is not None and self.sock is not None:
            self._call.was_reused = self._answers > 0
            # Connected already, so that this one counts; urllib3 would set the other first.
            self.timeout = self._call.read_timeout
        return super().request(*args, **kwargs)  # type: ignore[misc]

    def send(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        """Send, with the read timeout for each piece: a receiver may pause for longer than connecting may take."""
        if self.sock is None or self._call is None:
            return super().send(data, *args, **kwargs)  # type: ignore[misc]
        result = None
        for piece in _pieces(data):
            self.sock.settimeout(self._call.read_timeout)
            result = super().send(piece, *args, **kwargs)  # type: ignore[misc]
        return result

    def getresponse(self, *args: Any, **kwargs: Any) -> Any:
        sock, call = self.sock, self._call
        limit, ends = (self.timeout, None) if call is None else (call.read_timeout, call.ends)
        sock.call = call
        sock.ends = ends if ends is not None or limit is None else time.monotonic() + limit
        response = super().getresponse(*args, **kwargs)  # type: ignore[misc]
        self._answers += 1
        if ends is None:
            # The headers are there. A body may take as long as something comes.
            sock.ends = None
            with suppress(OSError):
                sock.settimeout(limit)
        return response


@cache
def timed_connection(base: Any) -> Any:
    """Return a class of connections that end on time: this one where it is not known, as a test double's is not."""
    if base.__module__ not in _KNOWN:
        return base
    # With urllib3-future in its place, urllib3 has connections that are not those of http.client.
    standard = issubclass(base, http.client.HTTPConnection)
    members = {"response_class": _Response} if standard else {}
    return type(f"Timed{base.__name__}", (TimedConnection, base), members)


def _pieces(data: Any) -> Iterator[Any]:
    if not isinstance(data, bytes) or len(data) <= _PIECE:
        yield data
        return
    view = memoryview(data)
    for start in range(0, len(data), _PIECE):
        yield view[start : start + _PIECE]
