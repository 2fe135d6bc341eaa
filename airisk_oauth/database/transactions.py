"""What a site's own database options and transactions mean for what we write. Knows no model."""

import random
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

from django.conf import settings
from django.db import InterfaceError, OperationalError, connections, transaction

Result = TypeVar("Result")
View = TypeVar("View", bound=Callable[..., Any])

TRIES: Final = 6
#: "Serialization failure" and "deadlock detected" (SQLSTATE); MySQL's deadlock, lock wait timeout and changed record.
_CONFLICTS: Final = frozenset({"40001", "40P01", 1213, 1205, 1020})


def in_transaction(using: str) -> bool:
    """Tell whether what is written now is undone where the caller's transaction fails.

    The transaction that Django's ``TestCase`` puts around a test stands for none.
    """
    connection = connections[using]
    if connection.in_atomic_block:
        return not all(getattr(block, "_from_testcase", False) for block in connection.atomic_blocks)
    # A site that commits by itself.
    return connection.connection is not None and not connection.autocommit


def test_of(using: str) -> object:
    """Return what stands for the Django ``TestCase`` that runs, or ``None``."""
    tests = [block for block in connections[using].atomic_blocks if getattr(block, "_from_testcase", False)]
    return tests[-1] if tests else None


def after_commit(using: str, work: Callable[[], object]) -> bool:
    """Do this once the caller's transaction has committed; false, and nothing is done, where there is none to wait for.

    What it raises is logged by Django.
    """
    waits = in_transaction(using) and connections[using].in_atomic_block
    if waits:
        transaction.on_commit(work, using=using, robust=True)
    return waits


def search_path(using: str) -> str:
    """Return what tells one tenant's tables from another's of the same name on this connection."""
    connection = connections[using]
    if connection.vendor != "postgresql":
        return ""
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_schemas(false)::text")
        return str(cursor.fetchone()[0])


def retrying(using: str, work: Callable[[], Result]) -> Result:
    """Do this, and again where the database broke it off for the sake of a concurrent transaction.

    Under ``REPEATABLE READ`` a single ``UPDATE`` can meet that. Inside a transaction nothing is repeated: it is lost.
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
    """Read this, on a new connection where the database has closed the one that a long-lived process held."""
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
    """Take a view out of ``ATOMIC_REQUESTS``, on every database; a method of an admin class, too."""
    for database in settings.DATABASES:
        view = transaction.non_atomic_requests(using=database)(view)
    return view
