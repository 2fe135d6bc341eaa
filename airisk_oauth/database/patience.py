"""Waiting for a database that is away for a moment, as during a restart."""

import time
from collections.abc import Callable
from typing import TypeVar

from django.db import InterfaceError, OperationalError, connections

Result = TypeVar("Result")

#: How often a database that went away is tried again, in seconds.
TRY_AGAIN = 0.2


class Patience:
    """Does what the database is needed for; when that goes away, as in a restart, waits for it and does it again.

    Whatever is done may be done twice. Inside a transaction, which is lost then, nothing is.

    :param using: alias of the database.
    :param seconds: for how long it waits. After it has waited in vain once, it does not wait again.
    :param tell: called with the error when it begins to wait.
    """

    def __init__(self, using: str, seconds: float, tell: Callable[[Exception], object]) -> None:
        self._using, self._seconds, self._tell = using, seconds, tell

    def __call__(self, work: Callable[[], Result]) -> Result:
        connection = connections[self._using]
        give_up = time.monotonic() + self._seconds
        waits = False
        while True:
            try:
                return work()
            except (OperationalError, InterfaceError) as error:
                if connection.in_atomic_block or time.monotonic() > give_up:
                    self._seconds = 0
                    raise
                if not waits:
                    self._tell(error)
                waits = True
                connection.close()
                time.sleep(TRY_AGAIN)
