"""A connected socket, within one limit for the look-up of a name and all of its addresses."""

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

#: Seconds before the next address is tried beside those that have not answered (RFC 8305, section 5).
STAGGER: Final = 0.25
_IN_PROGRESS: Final = {0, errno.EINPROGRESS, errno.EWOULDBLOCK, getattr(errno, "WSAEWOULDBLOCK", 0)}


class NotResolved(OSError):
    """The name has no address; the only argument is the resolver's own error."""


def connect(host: str, port: int, family: int, options: Iterable[Any], seconds: float | None) -> socket.socket:
    """Connect to whichever address of a host answers first.

    :param family: as for ``socket.getaddrinfo``.
    :param options: arguments of ``setsockopt`` for the socket.
    :param seconds: for all of it, and the timeout of the socket; ``None``: no limit.
    :raises NotResolved: the name cannot be resolved.
    :raises TimeoutError: no address has answered in time.
    :raises OSError: no address accepts a connection.
    """
    ends = None if seconds is None else time.monotonic() + seconds
    addresses = _addresses(host, port, family, seconds)
    with selectors.DefaultSelector() as waiting:
        try:
            sock = _first(addresses, [option[:3] for option in options], ends, waiting)
            waiting.unregister(sock)
        finally:
            for key in list(waiting.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]
    sock.settimeout(seconds)
    return sock


def in_time(work: Callable[[], Result], seconds: float | None) -> Result:
    """Do what cannot be interrupted and return its result, or stop waiting for it.

    :raises TimeoutError: it takes longer than this. A thread goes on with it, and closes its result.
    """
    result: Future[Result] = Future()

    def run() -> None:
        try:
            value = work()
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is waited for
            result.set_exception(error)
        else:
            result.set_result(value)

    try:
        threading.Thread(target=run, name="airisk-connect", daemon=True).start()
    except RuntimeError:
        # There can be no more threads, or the interpreter is about to exit.
        return work()
    try:
        return result.result(seconds)
    except BaseException:
        result.add_done_callback(_close)
        raise


def _close(result: Future[Any]) -> None:
    if result.exception() is None and hasattr(result.result(), "close"):
        result.result().close()


def _addresses(host: str, port: int, family: int, seconds: float | None) -> list[Any]:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        # Nobody has to be asked, so nobody can be slow.
        seconds = None

    def look_up() -> list[Any]:
        return [*socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)]

    try:
        return look_up() if seconds is None else in_time(look_up, seconds)
    except socket.gaierror as error:
        raise NotResolved(error) from error


def _first(
    addresses: list[Any], options: list[Any], ends: float | None, waiting: selectors.BaseSelector
) -> socket.socket:
    """Return the first socket that is connected; all are registered with the selector until then."""
    failure: OSError = OSError("The name has no address.")
    while addresses or waiting.get_map():
        left = None if ends is None else ends - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError("timed out")
        if addresses:
            try:
                waiting.register(_begin(addresses.pop(0), options), selectors.EVENT_WRITE)
            except OSError as error:
                failure = error
                continue
        for key, _events in waiting.select(_pause(left, STAGGER if addresses else None)):
            sock: Any = key.fileobj
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if not code:
                return sock  # type: ignore[no-any-return]
            failure = OSError(code, os.strerror(code))
            waiting.unregister(sock)
            sock.close()
    raise failure


def _begin(info: Any, options: list[Any]) -> socket.socket:
    family, kind, protocol, _name, address = info
    sock = socket.socket(family, kind, protocol)
    try:
        for option in options:
            sock.setsockopt(*option)
        sock.setblocking(False)  # noqa: FBT003
        code = sock.connect_ex(address)
        if code not in _IN_PROGRESS:
            raise OSError(code, os.strerror(code))  # noqa: TRY301 - what closes the socket is one
    except BaseException:
        sock.close()
        raise
    return sock


def _pause(left: float | None, stagger: float | None) -> float | None:
    limits = [seconds for seconds in (left, stagger) if seconds is not None]
    return min(limits) if limits else None
