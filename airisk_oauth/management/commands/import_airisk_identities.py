"""Say who many users are on AIRisk, from a CSV file: all of it, or where a row is wrong nothing."""

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
#: What spreadsheets put between the fields, which depends on the language that they are set to.
DELIMITERS: Final = ",;\t"
BATCH: Final = 500


class Row(NamedTuple):
    """A row of the file, the line that it ends on, and what is wrong with it."""

    line: int
    name: str = ""
    userid: str = ""
    deployment: str = ""
    wrong: str = ""


class Command(BaseCommand):
    help = "Imports who is who on AIRisk from a CSV file with the columns user, userid and, if you like, deployment."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path, help="UTF-8, with a header; users by natural key")
        parser.add_argument("--deployment", default=conf.DEFAULT_ALIAS, help="where the file names none")
        parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            rows = list(_rows(options["file"], options["deployment"]))
            aliases = conf.aliases()
        except UnicodeDecodeError:
            text = f"{options['file']} cannot be read: it is not in UTF-8. A spreadsheet can save it as CSV UTF-8."
            raise CommandError(text) from None
        except (OSError, csv.Error, ImproperlyConfigured) as error:
            raise CommandError(f"{options['file']} cannot be read: {error}") from None
        users = _users({row.name for row in rows})
        rows = list(_judged(rows, users, aliases))
        wrong = [row for row in rows if row.wrong]
        for row in wrong:
            self.stderr.write(f"Line {row.line}: {row.wrong}")
        if wrong:
            raise CommandError(f"{len(wrong)} of {len(rows)} rows are wrong. Nothing was imported.")
        try:
            added, changed = _import(rows, users, dry_run=options["dry_run"])
        except DatabaseError as error:
            raise CommandError(f"Nothing was imported: {error}") from None
        said = f"{added} added, {changed} changed, {len(rows) - added - changed} as they were"
        self.stdout.write(f"{said}{'; nothing was saved' if options['dry_run'] else ''}.")


def _rows(file: Path, default: str) -> Iterator[Row]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        header = lines.readline()
        reader = csv.reader(chain([header], lines), delimiter=max(DELIMITERS, key=header.count), strict=True)
        columns = [name.strip().lower() for name in next(reader, [])]
        if not {"user", "userid"} <= set(columns) <= set(COLUMNS) or len(columns) > len(set(columns)):
            raise csv.Error("its first line has to name the columns user, userid and, if you like, deployment")
        last = reader.line_num
        try:
            for fields in reader:
                last = reader.line_num
                if any(map(str.strip, fields)):
                    yield _row(last, columns, fields, default)
        except csv.Error as error:
            # A quote that nothing closes is found at the end of the file only.
            raise csv.Error(f"in the row after line {last}, {error}") from None


def _row(line: int, columns: list[str], fields: list[str], default: str) -> Row:
    if len(fields) != len(columns):
        return Row(line, wrong="it has not as many fields as the first line.")
    values = dict(zip(columns, map(str.strip, fields), strict=True))
    return Row(line, values["user"], values["userid"], values.get("deployment") or default)


def _users(names: set[str]) -> dict[str, Any]:
    """Return users by natural key, those left out that there are not."""
    model: Any = get_user_model()
    manager = model._default_manager
    found: dict[str, Any] = {}
    # No database has such a name, and PostgreSQL takes offence at it.
    names = {name for name in names if "\0" not in name}
    keyed = getattr(type(manager), "get_by_natural_key", None)
    by_username = keyed in (None, BaseUserManager.get_by_natural_key)
    if by_username and model._meta.get_field(model.USERNAME_FIELD).unique:
        found = manager.in_bulk(names, field_name=model.USERNAME_FIELD)
    for name in names - found.keys():
        with suppress(model.DoesNotExist, model.MultipleObjectsReturned):
            found[name] = find_user(name)
    return found


def _judged(rows: list[Row], users: dict[str, Any], aliases: list[str]) -> Iterator[Row]:
    """Yield the rows, each with what is wrong with it."""
    first: dict[tuple[Any, str], int] = {}
    for row in rows:
        wrong = row.wrong or _wrong(row, users, aliases)
        if not wrong and (line := first.setdefault((users[row.name].pk, row.deployment), row.line)) != row.line:
            wrong = f"line {line} names this user already."
        yield row._replace(wrong=wrong)


def _wrong(row: Row, users: dict[str, Any], aliases: list[str]) -> str:
    if row.name not in users:
        return f"there is no user {row.name!r}."
    if not conf.is_userid(row.userid):
        return f"{row.userid!r} cannot be a userid."
    if row.deployment not in aliases:
        return f"there is no deployment {row.deployment!r}."
    return ""


def _import(rows: list[Row], users: dict[str, Any], *, dry_run: bool) -> tuple[int, int]:
    """Save all rows, and return how many identities were added, and how many changed."""
    identities = AIRiskIdentity.objects.primary()
    added, changed = [], []
    # Two imports at once lock what both of them change in one order, or they might wait for each other for ever.
    rows = sorted(rows, key=lambda row: (users[row.name].pk, row.deployment))
    with transaction.atomic(using=identities.db):
        if not connections[identities.db].features.has_select_for_update:
            # A transaction of SQLite's that began with reading may not go on to write.
            identities.filter(pk=0).update(userid="")
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            known = identities.filter(user__in=[users[row.name].pk for row in batch])
            known = known.select_for_update().order_by("user_id", "deployment")
            there = {(identity.user_id, identity.deployment): identity for identity in known}
            for row in batch:
                user = users[row.name]
                identity = there.get((user.pk, row.deployment))
                if identity is None:
                    added.append(AIRiskIdentity(user=user, deployment=row.deployment, userid=row.userid))
                elif identity.userid != row.userid:
                    identity.userid = row.userid
                    changed.append(identity)
        identities.bulk_create(added, BATCH)
        identities.bulk_update(changed, ["userid"], BATCH)
        transaction.set_rollback(dry_run, using=identities.db)
    return len(added), len(changed)
