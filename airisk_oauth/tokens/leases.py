"""A lease on a token's row: whoever holds it renews the token. It is taken and released by a conditional ``UPDATE``.

A holder that dies blocks the token only until the lease expires.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Final, cast
from uuid import UUID

from django.db import connections, models, transaction
from django.db.models import Case, Q, Value, When
from django.db.models.functions import Cast

from ..database.expiry import SKEW
from ..database.transactions import retrying
from ..models import AIRiskToken, AIRiskTokenQuerySet
from ..oauth.deployment import Deployment

#: A lease lasts this many seconds longer than the HTTP calls of a renewal can take.
LEASE_MARGIN: Final = 15.0


def lease_seconds(deployment: Deployment) -> float:
    """Return how many seconds a renewal leases its token for."""
    return sum(deployment.timeout) + LEASE_MARGIN


def claim(
    tokens: AIRiskTokenQuerySet, lease: UUID, *, now: datetime, seconds: float, limit: int | None = None
) -> list[AIRiskToken]:
    """Lease the first ``limit`` of these rows that nobody else has leased, and return them.

    A lease that lasts longer than the one requested is ignored: it was taken for a token that waits in a sweep's
    queue, or by a wrong clock. A claim whose answer was lost with the connection can be repeated.

    If the database can lock rows, a row that another transaction is changing is skipped; an ``UPDATE`` alone would wait
    for that transaction to end. MySQL and MariaDB lock every row that they read on the way, which would hide rows from
    another sweep, so there a page is read first and then locked by primary key. Otherwise each statement is a
    transaction of its own, because on SQLite a transaction that began by reading may not be able to write.

    :param now: from when the lease counts.
    :param seconds: how long it lasts.
    """
    too_long = Q(lease_until__gt=now + timedelta(seconds=seconds) + SKEW)
    rows = tokens.primary().filter(Q(lease_until=None) | Q(lease_until__lt=now) | too_long | Q(lease=lease))
    taken = {"lease": lease, "lease_until": now + timedelta(seconds=seconds)}
    database = connections[rows.db]
    claim_these = _claim_unlocked if database.features.has_select_for_update_skip_locked else _claim_unleased
    if claim_these is _claim_unlocked and (limit is None or database.vendor != "mysql"):
        return _claim_unlocked(rows[:limit], taken)
    passed: list[Any] = []
    while pks := list(rows.exclude(pk__in=passed).values_list("pk", flat=True)[:limit]):
        if claimed := claim_these(rows.filter(pk__in=pks), taken):
            return claimed
        passed += pks
    return []


def _claim_unlocked(rows: AIRiskTokenQuerySet, taken: dict[str, Any]) -> list[AIRiskToken]:
    """Claim those of these rows that no other transaction has locked."""
    return retrying(rows.db, lambda: _lock_and_claim(rows, taken))


def _lock_and_claim(rows: AIRiskTokenQuerySet, taken: dict[str, Any]) -> list[AIRiskToken]:
    with transaction.atomic(using=rows.db):
        claimed = list(rows.select_for_update(skip_locked=True))
        AIRiskToken.objects.primary().filter(pk__in=[token.pk for token in claimed]).update(**taken)
    return claimed


def _claim_unleased(rows: AIRiskTokenQuerySet, taken: dict[str, Any]) -> list[AIRiskToken]:
    """Claim these rows by one ``UPDATE``, which leaves out those that have been leased meanwhile."""
    rows.write(**taken)
    return list(rows.filter(lease=taken["lease"]))


def save_and_release(tokens: list[AIRiskToken], lease: UUID, fields: Iterable[str] = ()) -> list[AIRiskToken]:
    """Write these fields of leased rows, release the rows, and return the tokens that were saved.

    A row that has lost this lease meanwhile is left as it is. One statement for all rows could deadlock: it would wait
    for a row that a transaction of the site has locked, while that transaction may wait for another of these rows. So
    the rows that are not locked are written together, and the others one by one.
    """
    objects = AIRiskToken.objects.primary()
    if len(tokens) < 2 or not connections[objects.db].features.has_select_for_update_skip_locked:
        return _save_together(tokens, lease, fields)
    saved = retrying(objects.db, lambda: _save_unlocked(tokens, lease, fields))
    done = {token.pk for token in saved}
    for token in tokens:
        if token.pk not in done:
            saved = [*saved, *_save_together([token], lease, fields)]
    return saved


def _save_unlocked(tokens: list[AIRiskToken], lease: UUID, fields: Iterable[str]) -> list[AIRiskToken]:
    objects = AIRiskToken.objects.primary()
    with transaction.atomic(using=objects.db):
        ours = objects.filter(pk__in=[token.pk for token in tokens], lease=lease)
        free = set(ours.select_for_update(skip_locked=True).values_list("pk", flat=True))
        return _save_together([token for token in tokens if token.pk in free], lease, fields)


def _save_together(tokens: list[AIRiskToken], lease: UUID, fields: Iterable[str]) -> list[AIRiskToken]:
    """Write all these tokens in one statement, and return those that were saved."""
    if not tokens:
        return []
    rows = AIRiskToken.objects.primary().filter(pk__in=[token.pk for token in tokens])
    values = {name: _column(name, tokens, rows.db) for name in fields}
    if rows.filter(lease=lease).write(**values, lease=None, lease_until=None) == len(tokens):
        return tokens
    stored = {row["pk"]: row for row in rows.values("pk", *fields)}
    return [
        token
        for token in tokens
        if stored.get(token.pk) == {"pk": token.pk, **{name: getattr(token, name) for name in fields}}
    ]


def _column(name: str, tokens: list[AIRiskToken], database: str) -> Any:
    """Return the value of a column if all rows get the same, else an expression that gives each row its own."""
    values = [getattr(token, name) for token in tokens]
    if values.count(values[0]) == len(values):
        return values[0]
    field = cast("models.Field[Any, Any]", AIRiskToken._meta.get_field(name))
    each = zip(tokens, values, strict=True)
    case = Case(*(When(pk=token.pk, then=Value(value, field)) for token, value in each), output_field=field)
    # Only if it is needed: SQLite's cast would truncate a time to milliseconds.
    return Cast(case, field) if connections[database].features.requires_casted_case_in_updates else case
