"""Connecting a socket, with one time limit for the name lookup and all addresses together."""

import errno
import ipaddress
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

Result = TypeVar("Result")

#: Seconds without an answer after which the next address is tried at the same time (RFC 8305, section 5).
STAGGER: Final = 0.25
_IN_PROGRESS: Final = {0, errno.EINPROGRESS, errno.EWOULDBLOCK, getattr(errno, "WSAEWOULDBLOCK", 0)}


class NotResolved(OSError):
    """The host name could not be resolved; the only argument is the resolver's own error."""


def connect(host: str, port: int, family: int, options: Iterable[Any], seconds: float | None) -> socket.socket:
    """Return a socket that is connected to the first address of a host that answers.

    :param family: as for ``socket.getaddrinfo``.
    :param options: arguments for ``setsockopt``, one sequence for each call.
    :param seconds: the limit for everything here, and then the timeout of the socket; ``None``: no limit.
    :raises NotResolved: the name cannot be resolved.
    :raises TimeoutError: no address answered in time.
    :raises OSError: no address accepts a connection.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    addresses = _addresses(host, port, family, seconds)
    with selectors.DefaultSelector() as waiting:
        try:
            sock = _first_connected(addresses, [option[:3] for option in options], deadline, waiting)
            waiting.unregister(sock)
        finally:
            for key in list(waiting.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]
    sock.settimeout(seconds)
    return sock


def run_with_timeout(work: Callable[[], Result], seconds: float | None) -> Result:
    """Return the result of a function that cannot be interrupted, or stop waiting for it.

    :raises TimeoutError: it takes longer than this. It keeps running in a thread, which then closes its result.
    """
    result = run_in_thread(work)
    try:
        return result.result(seconds)
    except BaseException:
        close_when_done(result)
        raise


def run_in_thread(work: Callable[[], Result]) -> "Future[Result]":
    """Run a function in a thread of its own, or at once if no thread can be started."""
    result: Future[Result] = Future()

    def run() -> None:
        try:
            value = work()
        except BaseException as error:  # noqa: BLE001 - raised again by result()
            result.set_exception(error)
        else:
            result.set_result(value)

    try:
        threading.Thread(target=run, name="airisk-connect", daemon=True).start()
    except RuntimeError:
        # There are too many threads, or the interpreter is shutting down.
        run()
    return result


def close_when_done(result: "Future[Any]") -> None:
    """Close a result that nobody waits for any more, once it is there."""
    result.add_done_callback(_close)


def _close(result: Future[Any]) -> None:
    if result.exception() is None and hasattr(result.result(), "close"):
        result.result().close()


def _addresses(host: str, port: int, family: int, seconds: float | None) -> list[Any]:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        # An address needs no lookup, so nothing here can be slow.
        seconds = None

    def look_up() -> list[Any]:
        return [*socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)]

    try:
        return look_up() if seconds is None else run_with_timeout(look_up, seconds)
    except socket.gaierror as error:
        raise NotResolved(error) from error


def _first_connected(
    addresses: list[Any], options: list[Any], deadline: float | None, waiting: selectors.BaseSelector
) -> socket.socket:
    """Return the first socket that gets connected; all sockets are registered with the selector."""
    failure: OSError = OSError("The name has no address.")
    while addresses or waiting.get_map():
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError("timed out")
        if addresses:
            try:
                waiting.register(_start_connecting(addresses.pop(0), options), selectors.EVENT_WRITE)
            except OSError as error:
                failure = error
                continue
        for key, _events in waiting.select(_poll_timeout(left, STAGGER if addresses else None)):
            sock: Any = key.fileobj
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if not code:
                return sock  # type: ignore[no-any-return]
            failure = OSError(code, os.strerror(code))
            waiting.unregister(sock)
            sock.close()
    raise failure


def _start_connecting(info: Any, options: list[Any]) -> socket.socket:
    family, kind, protocol, _name, address = info
    sock = socket.socket(family, kind, protocol)
    try:
        for option in options:
            sock.setsockopt(*option)
        sock.setblocking(False)  # noqa: FBT003
        code = sock.connect_ex(address)
        if code not in _IN_PROGRESS:
            raise OSError(code, os.strerror(code))  # noqa: TRY301 - the except below closes the socket
    except BaseException:
        sock.close()
        raise
    return sock


def _poll_timeout(left: float | None, stagger: float | None) -> float | None:
    limits = [seconds for seconds in (left, stagger) if seconds is not None]
    return min(limits) if limits else None
