"""Say who many users are on AIRisk, from a CSV file: all of it, or where a row is wrong nothing."""

import csv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction

from airisk_oauth import conf
from airisk_oauth.models import AIRiskIdentity

COLUMNS: Final = ("user", "userid", "deployment")


class Row(NamedTuple):
    """A line of the file that can be taken over, or what is wrong with it."""

    line: int
    user: Any = None
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
            rows = list(_rows(options["file"], options["deployment"], conf.aliases()))
        except (OSError, UnicodeDecodeError, csv.Error, ImproperlyConfigured) as error:
            raise CommandError(f"{options['file']} cannot be read: {error}") from None
        wrong = [row for row in rows if row.wrong]
        for row in wrong:
            self.stderr.write(f"Line {row.line}: {row.wrong}")
        if wrong:
            raise CommandError(f"{len(wrong)} of {len(rows)} rows are wrong. Nothing was imported.")
        with transaction.atomic(using=AIRiskIdentity.objects.primary().db):
            done = Counter(_import(row) for row in rows)
            transaction.set_rollback(options["dry_run"], using=AIRiskIdentity.objects.primary().db)
        words = ", ".join(f"{done[what]} {what}" for what in ("added", "changed", "as they were"))
        self.stdout.write(f"{words}{'; nothing was saved' if options['dry_run'] else ''}.")


def _rows(file: Path, default: str, aliases: list[str]) -> Iterator[Row]:
    seen: dict[tuple[Any, str], int] = {}
    with file.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, strict=True)
        if not {"user", "userid"} <= set(reader.fieldnames or ()) <= set(COLUMNS):
            raise csv.Error("its first line has to name the columns user, userid and, if you like, deployment")
        for values in reader:
            row = _row(reader.line_num, values, default, aliases)
            first = seen.setdefault((row.user, row.deployment), row.line)
            if not row.wrong and first != row.line:
                row = row._replace(wrong=f"line {first} names this user already.")
            yield row


def _row(line: int, values: dict[str | Any, str | Any], default: str, aliases: list[str]) -> Row:
    if None in values or None in values.values():
        return Row(line, wrong="it has not as many fields as the first line.")
    name, userid = values["user"].strip(), values["userid"].strip()
    deployment = values.get("deployment", "").strip() or default
    users = get_user_model()
    try:
        user = users._default_manager.get_by_natural_key(name)
    except users.DoesNotExist:
        return Row(line, wrong=f"there is no user {name!r}.")
    if not conf.is_userid(userid):
        return Row(line, wrong=f"{userid!r} cannot be a userid.")
    if deployment not in aliases:
        return Row(line, wrong=f"there is no deployment {deployment!r}.")
    return Row(line, user, userid, deployment)


def _import(row: Row) -> str:
    """Save one row, and return what became of it."""
    identities = AIRiskIdentity.objects.primary()
    mine = {"user": row.user, "deployment": row.deployment}
    identity, added = identities.get_or_create(**mine, defaults={"userid": row.userid})
    if added:
        return "added"
    if identity.userid == row.userid:
        return "as they were"
    identity.userid = row.userid
    identity.save()
    return "changed"
