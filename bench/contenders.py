"""Contenders: processes that each take one measurement when asked, so that rounds of several can be interleaved.

``DATABASE_URL`` names a PostgreSQL server, on which contenders get empty databases of their own.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg

from .airisk import AIRisk

SQLITE, POSTGRESQL = "SQLite", "PostgreSQL"

Measurement = dict[str, Any]
Measure = Callable[[], Measurement]

ENVIRONMENT: Final = {
    "DJANGO_SETTINGS_MODULE": "bench.settings",
    # The fake AIRisk speaks plain HTTP.
    "OAUTHLIB_INSECURE_TRANSPORT": "1",
    "AUTHLIB_INSECURE_TRANSPORT": "1",
}


class Databases:
    """Creates empty databases."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.server = os.environ["DATABASE_URL"]

    def new(self, kind: str) -> str:
        """Create a database, and return its URL."""
        name = f"bench_{uuid4().hex[:12]}"
        if kind == SQLITE:
            return f"sqlite:///{self.folder / name}.sqlite3"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return urlsplit(self.server)._replace(path=f"/{name}").geturl()

    def version(self) -> str:
        with self.connect() as connection:
            number = connection.info.server_version
        return f"{number // 10000}.{number % 10000}"

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.server, autocommit=True)


class Contender(AbstractContextManager["Contender"]):
    """Starts a child process that calls ``prepare(*arguments)`` in a module, and then measures what that returns."""

    def __init__(self, module: str, *arguments: str, **environment: str) -> None:
        self.name = " ".join([module, *arguments])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.contender", module, *arguments],
            env={**os.environ, **ENVIRONMENT, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __exit__(self, *exc: object) -> None:
        self.process.communicate()

    def wait_until_ready(self) -> None:
        self._read()

    def measure(self) -> Measurement:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._read()

    def _read(self) -> Measurement:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"The contender {self.name} stopped without an answer.")
        answer: Measurement = json.loads(line)
        return answer


class Site:
    """Starts contenders with a database and the fake AIRisk."""

    def __init__(self, databases: Databases, airisk: AIRisk) -> None:
        self.databases = databases
        self.airisk = airisk

    def contender(
        self, module: str, *arguments: str, kind: str = SQLITE, apps: str = "airisk_oauth", url: str = ""
    ) -> Contender:
        """Start a contender with a new database of this kind, or with the one at this URL."""
        url = url or self.databases.new(kind)
        return Contender(module, *arguments, BENCH_APPS=apps, BENCH_AIRISK_URL=self.airisk.url, DATABASE_URL=url)
