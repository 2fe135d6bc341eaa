"""How the sweep writes to many rows: with patience, and without ever waiting for one while it holds another."""

import time
from collections.abc import Callable, Iterable
from typing import TypeVar
from uuid import UUID

from django.db import InterfaceError, OperationalError, connections, transaction

from .database import retrying
from .models import AIRiskToken

Result = TypeVar("Result")

#: How often a database that went away is tried again, in seconds.
TRY_AGAIN = 0.2


class Patience:
    """Does what the database is needed for; when that goes away, as in a restart, waits for it and does it again.

    Whatever is done may be done twice. Inside a transaction, which is lost then, nothing is.

    :param seconds: for how long it waits. After it has waited in vain once, it does not wait again.
    :param tell: called with the error when it begins to wait.
    """

    def __init__(self, seconds: float, tell: Callable[[Exception], object]) -> None:
        self._seconds, self._tell = seconds, tell

    def __call__(self, work: Callable[[], Result]) -> Result:
        connection = connections[AIRiskToken.objects.primary().db]
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


def settle(tokens: list[AIRiskToken], lease: UUID, fields: Iterable[str] = ()) -> list[AIRiskToken]:
    """Write these fields of leased rows back, give up their lease, and return the tokens that were saved.

    One statement for all would wait for a row that a transaction of the site's holds, while that may wait for another
    one of these: a deadlock. So those rows that are free are written together, and each of the others by itself.
    """
    objects = AIRiskToken.objects.primary()
    if len(tokens) < 2 or not connections[objects.db].features.has_select_for_update_skip_locked:
        return AIRiskToken.objects.settle(tokens, lease, fields)
    saved = retrying(objects.db, lambda: _settle_unlocked(tokens, lease, fields))
    done = {token.pk for token in saved}
    for token in tokens:
        if token.pk not in done:
            saved = [*saved, *AIRiskToken.objects.settle([token], lease, fields)]
    return saved


def _settle_unlocked(tokens: list[AIRiskToken], lease: UUID, fields: Iterable[str]) -> list[AIRiskToken]:
    objects = AIRiskToken.objects.primary()
    with transaction.atomic(using=objects.db):
        ours = objects.filter(pk__in=[token.pk for token in tokens], lease=lease)
        free = set(ours.select_for_update(skip_locked=True).values_list("pk", flat=True))
        return AIRiskToken.objects.settle([token for token in tokens if token.pk in free], lease, fields)
