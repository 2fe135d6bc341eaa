"""Markers for databases, and a database that is not available."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import OperationalError, connection

committing = pytest.mark.django_db(transaction=True)

on_postgresql_only = pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has one writer")


@contextmanager
def database_away(what: str, times: float) -> Iterator[None]:
    """Make the first statements that begin with a text fail, as during a restart; there must be at least one."""
    failures = 0

    def fail(execute: Any, sql: str, *args: Any) -> Any:
        nonlocal failures
        if sql.startswith(what) and failures < times:
            failures += 1
            raise OperationalError("the database system is starting up")
        return execute(sql, *args)

    with connection.execute_wrapper(fail):
        yield
    assert failures > 0
