"""The log of calls, for audits: one ``call.finished`` for each call of the API.

It is off unless a site sets the level of ``airisk_oauth.calls`` itself: a level that is inherited would add a line for
each call to the log of every site whose other loggers are at INFO.
"""

import logging
import time
from typing import Any, Final, Protocol, Self, cast
from urllib.parse import urlsplit

from ..events import log

logger = logging.getLogger("airisk_oauth.calls")


class Caller(Protocol):
    """In whose name a call is made: a ``BearerPolicy``.

    :ivar owner: a user, who may be lazy, unless it is the application.
    """

    owner: Any

    @property
    def is_application(self) -> bool: ...

    @property
    def alias(self) -> str: ...


class Request(Protocol):
    """A request of either client."""

    method: Any
    url: Any
    headers: Any


class Unlogged:
    """A call that is not logged. There is one for all calls, so that a log that is off costs nothing."""

    __slots__ = ()

    def __enter__(self) -> Self:
        """Keep the call open; it is logged when it has been closed as often."""
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.close(error)

    def note_renewal(self) -> None:
        """Note that the token was renewed for this call."""

    def note_status(self, status: int) -> None:
        """Note the HTTP status of AIRisk's response."""

    def note_failure(self, kind: type[BaseException]) -> None:
        """Note why the call fails, although it is not closed yet."""

    def close(self, error: BaseException | None = None) -> None:
        """Log the call, unless it is still open elsewhere or was logged.

        :param error: why it failed.
        """


UNLOGGED: Final = Unlogged()


class Logged(Unlogged):
    """A call that is logged once it is finished. The same request may be sent again, which is another call."""

    def __init__(self, caller: Caller, request: Request) -> None:
        self._caller, self._request = caller, request
        self._open = 0
        self._begin()

    def _begin(self) -> None:
        self._began = time.monotonic()
        self._status: int | None = None
        self._error: str | None = None
        self._renewed = self._is_finished = False

    def __enter__(self) -> Self:
        if self._is_finished:
            self._begin()
        self._open += 1
        return self

    def note_renewal(self) -> None:
        self._renewed = True

    def note_status(self, status: int) -> None:
        self._status = status

    def note_failure(self, kind: type[BaseException]) -> None:
        self._error = kind.__name__

    def close(self, error: BaseException | None = None) -> None:
        self._open = max(self._open - 1, 0)
        if error is not None:
            self.note_failure(type(error))
        if not self._open and not self._is_finished:
            self._is_finished = True
            self._log()

    def _log(self) -> None:
        user_id = user_id_of(self._caller)
        if user_id is None and not self._caller.is_application:
            # Nobody is signed in, so nothing was called.
            return
        result = "got status %(airisk_status)s" if self._error is None else "failed (%(error)s)"
        log(
            logger,
            logging.INFO,
            "call.finished",
            f"%(method)s %(path)s on %(deployment)s, called by %(owner)s, {result} after %(duration).3f s",
            user_id=user_id,
            deployment=self._caller.alias,
            method=self._request.method,
            path=urlsplit(str(self._request.url)).path,
            airisk_status=self._status,
            duration=round(time.monotonic() - self._began, 3),
            token_renewed=self._renewed,
            error=self._error,
        )


def begin(caller: Caller, request: Request) -> Unlogged:
    """Begin a call that is about to be signed."""
    if logger.level == logging.NOTSET or not logger.isEnabledFor(logging.INFO):
        return UNLOGGED
    return Logged(caller, request)


def call_of(request: Request) -> Unlogged:
    """Return the call that a request makes which :class:`.AIRiskAuth` has signed."""
    return cast("Unlogged", getattr(request.headers.get("Authorization"), "call", UNLOGGED))


def user_id_of(caller: Caller) -> Any:
    """Return the primary key of a user; ``None`` for the application, and for a user whom nobody has looked up yet."""
    # Looking up a lazy user would need the database, which an event loop must not use.
    return getattr(getattr(caller.owner, "_wrapped", caller.owner), "pk", None)
