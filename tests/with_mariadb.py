"""Run a command with ``DATABASE_URL`` naming a real MariaDB of its own, which ends with it.

Usage: python -m tests.with_mariadb COMMAND [ARGUMENT …]

The server is Debian's ``mariadb-server``; none that is running already is used.
"""

import getpass
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

#: In seconds; it takes about one.
START: Final = 60


@contextmanager
def mariadb() -> Iterator[str]:
    """Run a MariaDB, and give the URL of its database ``site``."""
    with tempfile.TemporaryDirectory(prefix="airisk-oauth-mariadb-") as folder:
        socket = Path(folder, "socket")
        everyone = ["--no-defaults", f"--user={getpass.getuser()}", f"--datadir={folder}/data"]
        install = ["mariadb-install-db", *everyone, "--auth-root-authentication-method=normal", "--skip-test-db"]
        subprocess.run(install, check=True, capture_output=True)
        options = [
            f"--socket={socket}",
            "--skip-networking",
            # As Debian configures it.
            "--character-set-server=utf8mb4",
            "--collation-server=utf8mb4_general_ci",
            # No test waits for the disk; that changes nothing about locks.
            "--innodb-flush-log-at-trx-commit=0",
            "--innodb-flush-method=nosync",
            "--innodb-doublewrite=0",
            "--max-connections=300",
        ]
        with (
            Path(folder, "log").open("w+") as log,
            subprocess.Popen(["mariadbd", *everyone, *options], stdout=log, stderr=log) as server,
        ):
            try:
                _create_database(socket, server, Path(folder, "log"))
                yield f"mysql://root@/site?unix_socket={socket}"
            finally:
                server.terminate()


def _create_database(socket: Path, server: "subprocess.Popen[bytes]", log: Path) -> None:
    client = ["mariadb", "--no-defaults", "--user=root", f"--socket={socket}", "--execute=CREATE DATABASE site"]
    give_up = time.monotonic() + START
    while subprocess.run(client, check=False, capture_output=True).returncode:
        if server.poll() is not None or time.monotonic() > give_up:
            raise RuntimeError(f"MariaDB does not start:\n{log.read_text()}")
        time.sleep(0.1)


def main(command: list[str]) -> int:
    with mariadb() as url:
        return subprocess.run(command, env={**os.environ, "DATABASE_URL": url}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
