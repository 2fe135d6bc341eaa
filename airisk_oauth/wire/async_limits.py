"""A time limit for many waits in turn, on an event loop."""

import asyncio
import time
from contextlib import AbstractContextManager
from types import TracebackType


class TimeLimit(AbstractContextManager["TimeLimit"]):
    """Raises ``TimeoutError`` when a wait ends too late: ``with limit.until(deadline): await …``.

    Like ``asyncio.timeout()``, but one timer serves all waits, since starting one for each piece of an answer takes
    longer than reading the piece.
    """

    def __init__(self) -> None:
        self._deadline = self._timer_deadline = 0.0
        self._task: asyncio.Task[object] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._has_passed = False
        self._cancelling = 0

    def until(self, deadline: float) -> "TimeLimit":
        """Set the deadline of the next wait, on the monotonic clock."""
        self._deadline = deadline
        return self

    def __enter__(self) -> "TimeLimit":
        self._task = asyncio.current_task()
        self._cancelling = 0 if self._task is None else self._task.cancelling()
        if self._timer is None or self._deadline < self._timer_deadline:
            self.stop()
            self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if task is not None and self._has_passed:
            self._has_passed = False
            if task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
                raise TimeoutError from None

    def stop(self) -> None:
        """Stop the timer: there will be no further wait."""
        if self._timer is not None:
            self._timer.cancel()

    def _start(self) -> None:
        self._timer_deadline = self._deadline
        left = self._deadline - time.monotonic()
        self._timer = asyncio.get_running_loop().call_later(max(left, 0), self._check)

    def _check(self) -> None:
        self._timer = None
        if self._task is None:
            # The next wait starts another timer.
            return
        if time.monotonic() < self._deadline:
            self._start()
            return
        self._has_passed = True
        self._task.cancel()
