"""Wait for a database that is unavailable for a moment, for example while it restarts."""

import time
from collections.abc import Callable
from typing import TypeVar

from django.db import InterfaceError, OperationalError, connections

Result = TypeVar("Result")

#: How many seconds to wait between two attempts to reach the database.
RETRY_EVERY = 0.2


class Patience:
    """Calls functions that use the database; if the database is away, waits for it and calls the function again.

    So the function may run twice. Inside a transaction, which is lost with the connection, it is not called again.

    :param using: alias of the database.
    :param seconds: how long to wait. After one wait in vain, it does not wait any more.
    :param tell: called with the error when a wait begins.
    """

    def __init__(self, using: str, seconds: float, tell: Callable[[Exception], object]) -> None:
        self._using, self._seconds, self._tell = using, seconds, tell

    def __call__(self, work: Callable[[], Result]) -> Result:
        connection = connections[self._using]
        give_up = time.monotonic() + self._seconds
        is_waiting = False
        while True:
            try:
                return work()
            except (OperationalError, InterfaceError) as error:
                if connection.in_atomic_block or time.monotonic() > give_up:
                    self._seconds = 0
                    raise
                if not is_waiting:
                    self._tell(error)
                is_waiting = True
                connection.close()
                time.sleep(RETRY_EVERY)
