"""Run a command with ``DATABASE_URL`` naming a real MariaDB of its own, which ends with it.

Usage: python -m tests.with_mariadb COMMAND [ARGUMENT …]

The server is Debian's ``mariadb-server``. One that is running already is left alone.
"""

import getpass
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

#: How long the server may take to start, in seconds; it takes about one.
START: Final = 60
#: Debian puts servers where only root looks for commands.
PATHS: Final = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
OPTIONS: Final = [
    "--skip-networking",
    # As Debian configures it.
    "--character-set-server=utf8mb4",
    "--collation-server=utf8mb4_general_ci",
    # No test waits for the disk; that changes nothing about locks. What was committed survives a crash of the server.
    "--innodb-flush-log-at-trx-commit=2",
    "--innodb-flush-method=nosync",
    "--innodb-doublewrite=0",
    # Emptying a table would create a file each time.
    "--innodb-file-per-table=0",
    "--max-connections=300",
]


class Server:
    """A MariaDB that is started again when it crashes, as a service manager does."""

    def __init__(self, folder: str) -> None:
        self.socket, self.log = Path(folder, "socket"), Path(folder, "log")
        # A server that starts removes every temporary table in this folder, those of other servers, too.
        given = ["--no-defaults", f"--user={getpass.getuser()}", f"--datadir={folder}/data", f"--tmpdir={folder}"]
        install = [_find("mariadb-install-db"), *given, "--auth-root-authentication-method=normal", "--skip-test-db"]
        subprocess.run(install, check=True, stdout=subprocess.DEVNULL)
        self._command = [_find("mariadbd"), *given, *OPTIONS, f"--socket={self.socket}", f"--pid-file={folder}/pid"]
        self._stops = False
        self._process = self._start()
        self._thread = threading.Thread(target=self._start_again)
        self._thread.start()

    def _start(self) -> "subprocess.Popen[bytes]":
        with self.log.open("a") as log:
            return subprocess.Popen(self._command, stdout=log, stderr=log)

    def _start_again(self) -> None:
        while self._process.wait() and not self._stops:
            self._process = self._start()

    def stop(self) -> None:
        self._stops = True
        self._process.terminate()
        self._thread.join()

    def create_database(self) -> None:
        client = [_find("mariadb"), "--no-defaults", "--user=root", f"--socket={self.socket}"]
        give_up = time.monotonic() + START
        while subprocess.run([*client, "--execute=CREATE DATABASE site"], check=False, capture_output=True).returncode:
            if time.monotonic() > give_up:
                raise RuntimeError(f"MariaDB does not start:\n{self.log.read_text()}")
            time.sleep(0.1)


def _find(name: str) -> str:
    command = shutil.which(name, path=PATHS)
    if command is None:
        raise RuntimeError(f"There is no {name}: install Debian's mariadb-server.")
    return command


@contextmanager
def mariadb() -> Iterator[str]:
    """Run a MariaDB, and give the URL of its database ``site``."""
    with tempfile.TemporaryDirectory(prefix="airisk-oauth-mariadb-") as folder:
        server = Server(folder)
        try:
            server.create_database()
            yield f"mysql://root@/site?unix_socket={server.socket}"
        finally:
            server.stop()


def main(command: list[str]) -> int:
    with mariadb() as url:
        return subprocess.run(command, env={**os.environ, "DATABASE_URL": url}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
