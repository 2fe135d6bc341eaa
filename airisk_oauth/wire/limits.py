"""The time limits of one call, and a socket that obeys a deadline."""

import io
import time
from typing import Any, Final

from urllib3.util import Timeout

#: The shortest timeout, in seconds. A timeout of 0 would make a socket non-blocking.
SHORTEST: Final = 0.001
#: Timeouts that differ by less than this many seconds count as equal.
_TOLERANCE: Final = 0.01

#: Methods that may be sent again, without a body, if it is unknown whether they arrived (RFC 9110, section 9.2.2).
REPEATABLE: Final = ("GET", "HEAD", "OPTIONS")


class CallTimeout(Timeout):
    """The time limits of one call, and what its connection noted about it.

    :param connect: seconds for the name lookup, all addresses and TLS together; ``None``: no limit.
    :param read: seconds until the response headers are complete, and then between two pieces of the body.
    :param deadline: when the whole call has to be over, including the body, on the monotonic clock.
    :ivar was_reused: whether the request was sent on a connection that had been used before.
    :ivar has_answer: whether at least one byte of a response arrived.
    """

    def __init__(self, connect: Any, read: Any, deadline: float | None = None) -> None:
        super().__init__(connect=connect, read=read)
        self.deadline = deadline
        self.was_reused = False
        self.has_answer = False

    def clone(self) -> "CallTimeout":
        return self

    def start_connect(self) -> float:
        return time.monotonic()

    @property
    def has_lost_connection(self) -> bool:
        """Whether a call that failed, other than by a timeout, failed because it reused a stale connection."""
        return self.was_reused and not self.has_answer

    @property
    def seconds_left(self) -> float:
        """Seconds until the deadline, or a little more than 0 after it."""
        return max((self.deadline or 0) - time.monotonic(), SHORTEST)

    @property
    def connect_timeout(self) -> Any:
        seconds: Any = super().connect_timeout
        if self.deadline is not None:
            seconds = min(seconds, self.seconds_left)
        return None if seconds is None else _Seconds(seconds, self)

    @property
    def read_timeout(self) -> Any:
        return super().read_timeout if self.deadline is None else self.seconds_left


class _Seconds(float):
    """A timeout as ``urllib3`` passes it to a connection, with a reference to the call that it belongs to."""

    call: CallTimeout

    def __new__(cls, seconds: float, call: CallTimeout) -> "_Seconds":
        self = super().__new__(cls, seconds)
        self.call = call
        return self


class TimedSocket:
    """A socket that raises ``TimeoutError`` when it is read after a deadline.

    :ivar deadline: on the monotonic clock; ``None``: only the socket's own timeout applies, to each read.
    """

    def __init__(self, sock: Any) -> None:
        self._socket = sock
        self._timeout: float | None = sock.gettimeout()
        self.deadline: float | None = None
        self.call: CallTimeout | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def settimeout(self, seconds: float | None) -> None:
        """Set the timeout, unless it hardly changes: each change is a system call."""
        if seconds is None or self._timeout is None or abs(seconds - self._timeout) > _TOLERANCE:
            self._socket.settimeout(seconds)
            self._timeout = seconds

    def recv(self, *args: Any) -> bytes:
        self._obey_deadline()
        data: bytes = self._socket.recv(*args)
        self._note(len(data))
        return data

    def makefile(self, *_args: Any, **_kwargs: Any) -> io.BufferedReader:
        return io.BufferedReader(_TimedReader(self, self._socket.makefile("rb", buffering=0)))

    def _obey_deadline(self) -> None:
        if self.deadline is not None:
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("AIRisk's answer took too long.")
            self.settimeout(left)

    def _note(self, received: int | None) -> None:
        if received and self.call is not None:
            self.call.has_answer = True


class _TimedReader(io.RawIOBase):
    def __init__(self, sock: TimedSocket, file: Any) -> None:
        self._socket = sock
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._socket._obey_deadline()
        received: int | None = self._file.readinto(buffer)
        self._socket._note(received)
        return received

    def close(self) -> None:
        self._file.close()
        super().close()
