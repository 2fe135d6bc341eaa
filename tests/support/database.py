"""Markers for databases, and a database that is not available."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
from django.db import OperationalError, connection

committing = pytest.mark.django_db(transaction=True)

not_on_sqlite = pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has one writer, and no server")

_SERVER: Final = {
    "postgresql": {
        "end this connection": "SELECT pg_terminate_backend(pg_backend_pid())",
        "count waits": "SELECT count(*) FROM pg_locks WHERE NOT granted",
        "wait for 5 s": "SET lock_timeout = '5s'",
        "shorten the log": "CHECKPOINT",
        # The server stops all its other processes when one is killed.
        "find the process": "SELECT pg_backend_pid()",
    },
    "mysql": {
        "end this connection": "KILL CONNECTION_ID()",
        "count waits": "SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'",
        "wait for 5 s": "SET innodb_lock_wait_timeout = 5",
        "find the process": "SELECT @@pid_file",
    },
}


def ask_server(what: str) -> Any:
    """Send the server what it has a statement of its own for, and return the last value of the answer, if any."""
    with connection.cursor() as cursor:
        cursor.execute(_SERVER[connection.vendor][what])
        row = cursor.fetchone() if cursor.description else None
    return row and row[-1]


def quoted(sql: str) -> str:
    """Return a statement with names quoted as most databases do, and MySQL and MariaDB do not."""
    return sql.replace("`", '"')


@contextmanager
def database_away(what: str, times: float) -> Iterator[None]:
    """Make the first statements that begin with a text fail, as during a restart; there must be at least one."""
    failures = 0

    def fail(execute: Any, sql: str, *args: Any) -> Any:
        nonlocal failures
        if quoted(sql).startswith(what) and failures < times:
            failures += 1
            raise OperationalError("the database system is starting up")
        return execute(sql, *args)

    with connection.execute_wrapper(fail):
        yield
    assert failures > 0
