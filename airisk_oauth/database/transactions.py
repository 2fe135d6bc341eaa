"""Writing correctly under any database options and inside any transaction of the site."""

import random
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

from django.conf import settings
from django.db import InterfaceError, OperationalError, connections, transaction

Result = TypeVar("Result")
View = TypeVar("View", bound=Callable[..., Any])

TRIES: Final = 6
#: SQLSTATE for a serialization failure and a deadlock; MySQL's numbers for a deadlock, a lock wait timeout and a
#: changed record.
_CONFLICTS: Final = frozenset({"40001", "40P01", 1213, 1205, 1020})


def in_transaction(using: str) -> bool:
    """Tell whether what is written now is rolled back if the caller's transaction fails.

    The transaction that Django's ``TestCase`` puts around a test does not count.
    """
    connection = connections[using]
    if connection.in_atomic_block:
        return not all(getattr(block, "_from_testcase", False) for block in connection.atomic_blocks)
    # The site manages its transactions itself.
    return connection.connection is not None and not connection.autocommit


def test_of(using: str) -> object:
    """Return an object that identifies the Django ``TestCase`` that is running, or ``None``."""
    tests = [block for block in connections[using].atomic_blocks if getattr(block, "_from_testcase", False)]
    return tests[-1] if tests else None


def after_commit(using: str, work: Callable[[], object]) -> bool:
    """Do some work after the caller's transaction has committed, and tell whether there is one to wait for.

    Without a transaction this returns false and does nothing. Django logs what the work raises.
    """
    waits = in_transaction(using) and connections[using].in_atomic_block
    if waits:
        transaction.on_commit(work, using=using, robust=True)
    return waits


def search_path(using: str) -> str:
    """Return the schemas that this connection searches, which tell tenants' tables of the same name apart.

    Empty on databases other than PostgreSQL.
    """
    connection = connections[using]
    if connection.vendor != "postgresql":
        return ""
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_schemas(false)::text")
        return str(cursor.fetchone()[0])


def retrying(using: str, work: Callable[[], Result]) -> Result:
    """Do some work, and repeat it if the database aborted it because of a concurrent transaction.

    Under ``REPEATABLE READ`` this can happen to a single ``UPDATE``. Inside a transaction nothing is repeated, because
    the whole transaction is lost.
    """
    for tried in range(1, TRIES):
        try:
            return work()
        except OperationalError as error:
            if connections[using].in_atomic_block or not _is_conflict(error):
                raise
        time.sleep(random.uniform(0.5, 1) * 0.01 * 2**tried)  # noqa: S311 - only spreads the load
    return work()


def reconnecting(using: str, work: Callable[[], Result]) -> Result:
    """Do some reading, and repeat it on a new connection if the database has closed the one in use.

    Long-lived processes keep connections that a database restart or a firewall closes.
    """
    connection = connections[using]
    try:
        return work()
    except (OperationalError, InterfaceError):
        if connection.in_atomic_block:
            raise
        connection.close_if_unusable_or_obsolete()
        if connection.connection is not None:
            raise
    return work()


def _is_conflict(error: OperationalError) -> bool:
    cause = error.__cause__
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    number = error.args[0] if error.args else None
    return state in _CONFLICTS or (isinstance(number, int) and number in _CONFLICTS)


def non_atomic(view: View) -> View:
    """Exempt a view, or a method of an admin class, from ``ATOMIC_REQUESTS`` on every database."""
    for database in settings.DATABASES:
        view = transaction.non_atomic_requests(using=database)(view)
    return view
