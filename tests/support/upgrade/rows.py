"""The rows of a site that ran version 1.0.0, and the statements that this version sends to the database."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml
from django.apps import apps
from django.contrib.contenttypes.models import ContentType
from django.core.management.color import no_style
from django.db import connection, transaction
from django.db.backends.signals import connection_created
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

FOLDER: Final = Path(__file__).parent
STORED: Final = FOLDER / "stored_by_1_0_0.yaml"
SENT: Final = FOLDER / f"sent_by_1_0_0_to_{connection.vendor}.yaml"
#: The last migration of version 1.0.0.
LAST: Final = ("airisk_oauth", "0002_sealing_policy")
MODELS: Final = (
    "auth.User",
    "sessions.Session",
    "airisk_oauth.AIRiskIdentity",
    "airisk_oauth.AIRiskToken",
    "airisk_oauth.PendingAuthorization",
    "airisk_oauth.SealingPolicy",
    "admin.LogEntry",
)
#: How long after the site was filled version 1.0.0 used the database that was upgraded.
USED_AFTER: Final = timedelta(hours=2)
_TIME: Final = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?"

Statement = tuple[str, list[Any]]
#: By model, with the columns as they are in the database.
Rows = dict[str, list[dict[str, Any]]]


class Browser(NamedTuple):
    """A browser's session, and where AIRisk sent it back to."""

    session: str
    callback: str


class Site(NamedTuple):
    """What there is to know about a site besides its rows.

    :ivar access_tokens: those that AIRisk gave, by the primary key of their row.
    :ivar moved_by: how much later the times in the database are than those in the file.
    """

    settings: dict[str, Any]
    access_tokens: dict[int, str]
    browsers: dict[str, Browser]
    moved_by: timedelta


class Use(NamedTuple):
    """What version 1.0.0 sent to a database that was upgraded, by what it did, and the tokens at the end."""

    access_tokens: dict[int, str]
    statements: dict[str, list[Statement]]
    moved_by: timedelta


def read(file: Path) -> Any:
    return yaml.load(file.read_text(encoding="utf-8"), yaml.CSafeLoader)


def write(comment: str, content: dict[str, Any]) -> None:
    """Print it, with every row in one line."""
    print(f"# {comment}")
    print(yaml.dump(content, Dumper=yaml.CSafeDumper, default_flow_style=None, sort_keys=False, width=10**6))


def all_rows() -> Rows:
    managers = {label: apps.get_model(label)._base_manager for label in MODELS}
    return {label: [_named(row) for row in rows.order_by("pk").values()] for label, rows in managers.items()}


def _named(row: dict[str, Any]) -> dict[str, Any]:
    """Name a content type: its key is another one in every database."""
    if "content_type_id" in row:
        row["content_type_id"] = ContentType.objects.get_for_id(row["content_type_id"]).model
    return {name: _plain(value) for name, value in row.items()}


def _plain(value: Any) -> Any:
    """Return a value as a file can have it: of no subclass, and a UUID as text."""
    if value is None or isinstance(value, bool | float | datetime):
        return value
    return int(value) if isinstance(value, int) else str(value)


def load(age: timedelta) -> Site:
    """Give the database the tables of version 1.0.0, and what it stored, as if that had been so long ago."""
    for target in ((LAST[0], None), LAST):
        MigrationExecutor(connection).migrate([target])
    former = MigrationExecutor(connection).loader.project_state([LAST]).apps
    site = read(STORED)
    moved_by = timezone.now() - age - site["stored_at"]
    models = {label: (former if label.startswith("airisk_oauth.") else apps).get_model(label) for label in MODELS}
    _insert(stored(moved_by), models)
    browsers = {name: Browser(**browser) for name, browser in site["browsers"].items()}
    return Site(site["settings"], site["access_tokens"], browsers, moved_by)


def _insert(rows: Rows, models: dict[str, Any]) -> None:
    for label, found in rows.items():
        models[label]._base_manager.bulk_create(models[label](**_numbered(row)) for row in found)
    with connection.cursor() as cursor:
        for statement in connection.ops.sequence_reset_sql(no_style(), list(models.values())):
            cursor.execute(statement)


class Copy:
    """A copy of an upgraded site, because upgrading takes a second."""

    def __init__(self, site: Site) -> None:
        self._site, self._rows, self._made_at = site, all_rows(), timezone.now()

    def restore(self) -> Site:
        """Store the rows in an empty database, as old as they were when the copy was made."""
        by = timezone.now() - self._made_at
        _insert(_later(self._rows, by), {label: apps.get_model(label) for label in MODELS})
        return self._site._replace(moved_by=self._site.moved_by + by)


def moved_by() -> timedelta:
    """Return how much later the times in the database are than those in the file."""
    [first, *_others] = read(STORED)["rows"]["auth.User"]
    stored: datetime = first["date_joined"]
    in_database: datetime = apps.get_model("auth.User")._base_manager.get(pk=first["id"]).date_joined
    return in_database - stored


def migrate() -> None:
    """Upgrade the database, as ``manage.py migrate`` does."""
    executor = MigrationExecutor(connection)
    executor.migrate(executor.loader.graph.leaf_nodes(LAST[0]))


def stored(moved_by: timedelta) -> Rows:
    """Return the rows of version 1.0.0, by model, with all times so much later."""
    return _later(read(STORED)["rows"], moved_by)


def _later(rows: Rows, by: timedelta) -> Rows:
    return {
        label: [{name: _moved(value, by) for name, value in row.items()} for row in found]
        for label, found in rows.items()
    }


def _numbered(row: dict[str, Any]) -> dict[str, Any]:
    """Give a content type the key that it has in this database."""
    if "content_type_id" not in row:
        return row
    found = ContentType.objects.get_by_natural_key("airisk_oauth", row["content_type_id"])
    return {**row, "content_type_id": found.pk}


def _moved(value: Any, by: timedelta) -> Any:
    """Return a time as so much later, also as SQLite writes it, and anything else as it is."""
    if isinstance(value, datetime):
        return value + by
    if isinstance(value, str) and re.fullmatch(_TIME, value):
        return str(datetime.fromisoformat(value) + by)
    return value


@contextmanager
def recorded(what: str, statements: dict[str, list[Statement]]) -> Iterator[None]:
    """Record what any connection sends to our tables, under this name; a SELECT only if it is a new one."""
    known = {sql for sent in statements.values() for sql, _params in sent}
    statements[what] = []

    def record(execute: Any, sql: str, params: Any, *more: Any) -> Any:
        if "airisk_oauth_" in sql and not (sql.startswith("SELECT") and sql in known):
            statements[what].append((sql, [_plain(value) for value in params or ()]))
            known.add(sql)
        return execute(sql, params, *more)

    def wrap(connection: Any, **_given: Any) -> None:
        connection.execute_wrappers.append(record)

    connection_created.connect(wrap)
    with connection.execute_wrapper(record):
        yield
    connection_created.disconnect(wrap)


def replay(use: Use, site: Site) -> None:
    """Send what version 1.0.0 sent, each statement in a transaction of its own."""
    for sql, params in chain(*use.statements.values()):
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(sql, [_moved(value, site.moved_by - use.moved_by) for value in params])


def use_of_1_0_0() -> Use:
    recorded = read(SENT)
    statements = {what: [(sql, params) for sql, params in sent] for what, sent in recorded["statements"].items()}
    return Use(recorded["access_tokens"], statements, timedelta(seconds=recorded["moved_by"]))
