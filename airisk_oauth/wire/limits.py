"""How long one call may take, and a socket that is read for so long and no longer."""

import io
import time
from typing import Any, Final

from urllib3.util import Timeout

#: Seconds that are always left: a timeout of 0 means not to wait at all.
LEAST: Final = 0.001
#: Seconds by which two timeouts do not differ.
_SAME: Final = 0.01

#: Methods that may be sent again where nobody knows whether they arrived (RFC 9110, section 9.2.2), without a body.
REPEATABLE: Final = ("GET", "HEAD", "OPTIONS")


class CallTimeout(Timeout):
    """How long one call may take, and what its connection found out about it.

    :param connect: seconds for the look-up of the name, all addresses and TLS together; ``None``: no limit.
    :param read: seconds until the headers of the answer are complete, and between two pieces of its body.
    :param ends: when all of it has to be over, body included, on the monotonic clock.
    :ivar was_reused: the request went out on a connection that had been used before.
    :ivar is_heard: at least one byte of an answer came.
    """

    def __init__(self, connect: Any, read: Any, ends: float | None = None) -> None:
        super().__init__(connect=connect, read=read)
        self.ends = ends
        self.was_reused = False
        self.is_heard = False

    def clone(self) -> "CallTimeout":
        return self

    def start_connect(self) -> float:
        return time.monotonic()

    @property
    def has_lost_connection(self) -> bool:
        """Tell, of a call that failed otherwise than by a timeout, whether it used a connection that had gone stale."""
        return self.was_reused and not self.is_heard

    @property
    def left(self) -> float:
        """Seconds until the end of all of it, never quite none: a timeout of 0 means not to wait at all."""
        return max((self.ends or 0) - time.monotonic(), LEAST)

    @property
    def connect_timeout(self) -> Any:
        seconds: Any = super().connect_timeout
        if self.ends is not None:
            seconds = min(seconds, self.left)
        return None if seconds is None else _Seconds(seconds, self)

    @property
    def read_timeout(self) -> Any:
        return super().read_timeout if self.ends is None else self.left


class _Seconds(float):
    """A timeout as ``urllib3`` hands it to a connection, which knows the call that it is of."""

    call: CallTimeout

    def __new__(cls, seconds: float, call: CallTimeout) -> "_Seconds":
        self = super().__new__(cls, seconds)
        self.call = call
        return self


class TimedSocket:
    """A socket that is read until a deadline, and no longer.

    :ivar ends: the deadline on the monotonic clock; ``None``: each read has the socket's own timeout.
    """

    def __init__(self, sock: Any) -> None:
        self._socket = sock
        self._timeout: float | None = sock.gettimeout()
        self.ends: float | None = None
        self.call: CallTimeout | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def settimeout(self, seconds: float | None) -> None:
        """Set the timeout where it makes a difference; the operating system is asked each time."""
        if seconds is None or self._timeout is None or abs(seconds - self._timeout) > _SAME:
            self._socket.settimeout(seconds)
            self._timeout = seconds

    def recv(self, *args: Any) -> bytes:
        self._hurry()
        data: bytes = self._socket.recv(*args)
        self._note(len(data))
        return data

    def makefile(self, *_args: Any, **_kwargs: Any) -> io.BufferedReader:
        return io.BufferedReader(_TimedReader(self, self._socket.makefile("rb", buffering=0)))

    def _hurry(self) -> None:
        if self.ends is not None:
            left = self.ends - time.monotonic()
            if left <= 0:
                raise TimeoutError("AIRisk's answer took too long.")
            self.settimeout(left)

    def _note(self, received: int | None) -> None:
        if received and self.call is not None:
            self.call.is_heard = True


class _TimedReader(io.RawIOBase):
    def __init__(self, sock: TimedSocket, file: Any) -> None:
        self._socket = sock
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._socket._hurry()
        received: int | None = self._file.readinto(buffer)
        self._socket._note(received)
        return received

    def close(self) -> None:
        self._file.close()
        super().close()
