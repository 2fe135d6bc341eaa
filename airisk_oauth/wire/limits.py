"""The time limits of one call, and a socket that obeys a deadline."""

import io
import socket
import time
from contextlib import suppress
from typing import Any, Final

from urllib3.util import Timeout, wait_for_read

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
        self._socket: TimedSocket | None = None
        self._is_abandoned = False

    def use(self, sock: "TimedSocket") -> None:
        """Note the socket that the call is sent on.

        :raises ConnectionAbortedError: the call was abandoned.
        """
        self._socket = sock
        if self._is_abandoned:
            raise ConnectionAbortedError("The call was abandoned.")

    def abandon(self) -> None:
        """End the call, from another thread than the one that makes it."""
        self._is_abandoned = True
        if self._socket is not None:
            self._socket.shut_down()

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
        self.reads_nothing = False

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

    def buffered(self, file: io.BufferedReader) -> bytes:
        """Return what a file of this socket has read ahead, without reading from the socket."""
        self.reads_nothing = True
        try:
            return file.peek()
        finally:
            self.reads_nothing = False

    def wait(self, seconds: float) -> bool:
        """Tell whether the socket can be read; wait for that for at most this long.

        If that cannot be known, as with TLS within TLS, the answer is yes.
        """
        if not isinstance(self._socket, socket.socket) or getattr(self._socket, "pending", int)():
            return True
        return wait_for_read(self._socket, seconds)

    def shut_down(self) -> None:
        """Wake up the thread that reads from this socket: it finds that the stream has ended."""
        sock = getattr(self._socket, "socket", self._socket)
        with suppress(OSError):
            # Not by TLS, whose shutdown waits for the other side.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)

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
        self.sock = sock
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self.sock.reads_nothing:
            return None
        self.sock._obey_deadline()
        received: int | None = self._file.readinto(buffer)
        self.sock._note(received)
        return received

    def close(self) -> None:
        self._file.close()
        super().close()
