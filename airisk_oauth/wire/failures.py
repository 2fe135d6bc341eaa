"""Why a call got no answer, told without the exception of ``requests`` or ``httpx2``: that one carries the request."""

import signal
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from types import CodeType, TracebackType
from typing import Any


class CallFailure(AbstractContextManager["CallFailure"]):
    """Suppresses the exceptions that mean "no answer", and keeps their name and cause.

    Raise your own error after the ``with`` block: there the caught exception is gone, and not only hidden as
    ``__context__``. What a signal handler of the site's raised is raised as it is.

    :param expected: the exceptions to suppress.
    :param hidden: other exceptions, raised again without the frames below, which hold the token or the client secret:
        crash reports show frames.
    :ivar cause: see :func:`described`; empty where the block ended well.
    """

    def __init__(self, *expected: type[BaseException], hidden: tuple[type[BaseException], ...] = ()) -> None:
        self._expected, self._hidden = expected, hidden
        self._kind: type[BaseException] = Exception
        self.cause = ""

    @property
    def name(self) -> str:
        """The name of the exception's class."""
        return self._kind.__name__

    def is_a(self, *kinds: type[BaseException]) -> bool:
        return issubclass(self._kind, kinds)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if error is None:
            return False
        if isinstance(error, self._expected):
            own = interruption(error)
            if own is None:
                self._kind, self.cause = type(error), described(error)
                return True
            raise (own.with_traceback(None) if self._hidden else own) from None
        if isinstance(error, self._hidden):
            raise error.with_traceback(None) from None
        return False


def described(error: BaseException) -> str:
    """Return the name of an error's class and, where it is ours, its cause; the words of others may hold secrets."""
    cause = getattr(error, "cause", "")
    return f"{type(error).__name__}: {cause}" if cause else type(error).__name__


def interruption(error: BaseException) -> BaseException | None:
    """Return what a signal handler of the site's raised, if that is what this error comes from, else ``None``.

    A handler for SIGALRM that raises ``TimeoutError`` means the site's own time limit, and not that AIRisk is slow.
    """
    if threading.current_thread() is not threading.main_thread():
        return None
    handlers = set(_handlers())
    for each in _chain(error):
        traceback = each.__traceback__
        while traceback is not None:
            if traceback.tb_frame.f_code in handlers:
                return each
            traceback = traceback.tb_next
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the errors that led to this one, the first of them first."""
    if error is not None:
        yield from _chain(error.__cause__ or error.__context__)
        yield error


def _handlers() -> Iterator[CodeType]:
    for number in signal.valid_signals():
        handler: Any = signal.getsignal(number)
        if callable(handler):
            function = getattr(handler, "func", handler)
            function = function if hasattr(function, "__code__") else function.__call__
            code = getattr(function, "__code__", None)
            if isinstance(code, CodeType):
                yield code
