"""Imports AIRisk identities from a CSV file: all of them, or none if any row is wrong."""

import csv
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import BaseUserManager
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error as DatabaseError
from django.db import connections, transaction

from airisk_oauth import conf
from airisk_oauth.management.users import find_user
from airisk_oauth.models import AIRiskIdentity

COLUMNS: Final = ("user", "userid", "deployment")
#: Spreadsheets separate fields by one of these, depending on their language.
DELIMITERS: Final = ",;\t"
BATCH: Final = 500


class Row(NamedTuple):
    """A row of the file.

    :ivar line: the number of the line that it ends on.
    :ivar name: the user's natural key.
    :ivar problem: what is wrong with the row; empty if nothing is.
    """

    line: int
    name: str = ""
    userid: str = ""
    deployment: str = ""
    problem: str = ""


class Command(BaseCommand):
    help = "Imports AIRisk identities from a CSV file with the columns user, userid and, optionally, deployment."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path, help="a UTF-8 file with a header row; users are named by natural key")
        parser.add_argument("--deployment", default=conf.DEFAULT_ALIAS, help="the deployment of rows that name none")
        parser.add_argument("--dry-run", action="store_true", help="report what would change, without saving it")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            rows = list(_rows(options["file"], options["deployment"]))
            aliases = conf.aliases()
        except UnicodeDecodeError:
            text = f"{options['file']} cannot be read: it is not in UTF-8. In a spreadsheet, save it as CSV UTF-8."
            raise CommandError(text) from None
        except (OSError, csv.Error, ImproperlyConfigured) as error:
            raise CommandError(f"{options['file']} cannot be read: {error}") from None
        users = _users({row.name for row in rows})
        rows = list(_checked(rows, users, aliases))
        wrong = [row for row in rows if row.problem]
        for row in wrong:
            self.stderr.write(f"Line {row.line}: {row.problem}")
        if wrong:
            raise CommandError(f"{len(wrong)} of {len(rows)} rows are wrong. Nothing was imported.")
        try:
            added, changed = _import(rows, users, dry_run=options["dry_run"])
        except DatabaseError as error:
            raise CommandError(f"Nothing was imported: {error}") from None
        summary = f"{added} added, {changed} changed, {len(rows) - added - changed} unchanged"
        self.stdout.write(f"{summary}{'; nothing was saved' if options['dry_run'] else ''}.")


def _rows(file: Path, default: str) -> Iterator[Row]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        header = lines.readline()
        reader = csv.reader(chain([header], lines), delimiter=max(DELIMITERS, key=header.count), strict=True)
        columns = [name.strip().lower() for name in next(reader, [])]
        if not {"user", "userid"} <= set(columns) <= set(COLUMNS) or len(columns) > len(set(columns)):
            raise csv.Error("its first line must name the columns user, userid and, optionally, deployment")
        last = reader.line_num
        try:
            for fields in reader:
                last = reader.line_num
                if any(map(str.strip, fields)):
                    yield _row(last, columns, fields, default)
        except csv.Error as error:
            # An unclosed quote is only noticed at the end of the file.
            raise csv.Error(f"in the row after line {last}, {error}") from None


def _row(line: int, columns: list[str], fields: list[str], default: str) -> Row:
    if len(fields) != len(columns):
        return Row(line, problem="it has more or fewer fields than the first line.")
    values = dict(zip(columns, map(str.strip, fields), strict=True))
    return Row(line, values["user"], values["userid"], values.get("deployment") or default)


def _users(names: set[str]) -> dict[str, Any]:
    """Return the users with these natural keys, by key; keys without a user are left out."""
    model: Any = get_user_model()
    manager = model._default_manager
    found: dict[str, Any] = {}
    # No user can have such a name, and PostgreSQL raises an error for it.
    names = {name for name in names if "\0" not in name}
    keyed = getattr(type(manager), "get_by_natural_key", None)
    by_username = keyed in (None, BaseUserManager.get_by_natural_key)
    if by_username and model._meta.get_field(model.USERNAME_FIELD).unique:
        found = manager.in_bulk(names, field_name=model.USERNAME_FIELD)
    for name in names - found.keys():
        with suppress(model.DoesNotExist, model.MultipleObjectsReturned):
            found[name] = find_user(name)
    return found


def _checked(rows: list[Row], users: dict[str, Any], aliases: list[str]) -> Iterator[Row]:
    """Yield the rows, each with its problem, if any."""
    first: dict[tuple[Any, str], int] = {}
    for row in rows:
        problem = row.problem or _problem(row, users, aliases)
        if not problem and (line := first.setdefault((users[row.name].pk, row.deployment), row.line)) != row.line:
            problem = f"line {line} is already about this user."
        yield row._replace(problem=problem)


def _problem(row: Row, users: dict[str, Any], aliases: list[str]) -> str:
    if row.name not in users:
        return f"there is no user {row.name!r}."
    if not conf.is_userid(row.userid):
        return f"{row.userid!r} is not a valid userid."
    if row.deployment not in aliases:
        return f"there is no deployment {row.deployment!r}."
    return ""


def _import(rows: list[Row], users: dict[str, Any], *, dry_run: bool) -> tuple[int, int]:
    """Save all rows, and return how many identities were added and how many were changed."""
    identities = AIRiskIdentity.objects.primary()
    added, changed = [], []
    # Two imports at the same time lock rows in the same order; otherwise they could deadlock.
    rows = sorted(rows, key=lambda row: (users[row.name].pk, row.deployment))
    with transaction.atomic(using=identities.db):
        if not connections[identities.db].features.has_select_for_update:
            # A transaction on SQLite that starts by reading may not be able to write later.
            identities.filter(pk=0).update(userid="")
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            known = identities.filter(user__in=[users[row.name].pk for row in batch])
            known = known.select_for_update().order_by("user_id", "deployment")
            existing = {(identity.user_id, identity.deployment): identity for identity in known}
            for row in batch:
                user = users[row.name]
                identity = existing.get((user.pk, row.deployment))
                if identity is None:
                    added.append(AIRiskIdentity(user=user, deployment=row.deployment, userid=row.userid))
                elif identity.userid != row.userid:
                    identity.userid = row.userid
                    changed.append(identity)
        identities.bulk_create(added, BATCH)
        identities.bulk_update(changed, ["userid"], BATCH)
        transaction.set_rollback(dry_run, using=identities.db)
    return len(added), len(changed)
