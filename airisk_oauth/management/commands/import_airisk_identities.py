"""Imports AIRisk identities from a CSV file: all of them, or none if any row is wrong."""

from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error as DatabaseError

from airisk_oauth import conf
from airisk_oauth.management.csv_rows import Row, UnreadableFile
from airisk_oauth.management.importing import import_identities


class Command(BaseCommand):
    help = (
        "Imports AIRisk identities from a CSV file with the columns user, userid and, optionally, deployment and label."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path, help="a UTF-8 file with a header row; users are named by natural key")
        parser.add_argument("--deployment", default=conf.DEFAULT_ALIAS, help="the deployment of rows that name none")
        parser.add_argument("--dry-run", action="store_true", help="report what would change, without saving it")

    def handle(self, *args: Any, **options: Any) -> None:
        dry_run = options["dry_run"]
        try:
            with options["file"].open(encoding="utf-8-sig", newline="") as lines:
                result = import_identities(lines, options["deployment"], on_wrong=self._report, dry_run=dry_run)
        except (OSError, UnreadableFile, ImproperlyConfigured) as error:
            raise CommandError(f"{options['file']} cannot be read: {error}") from None
        except DatabaseError as error:
            raise CommandError(f"Nothing was imported: {error}") from None
        if result.wrong:
            raise CommandError(f"{result.wrong} of {result.total} rows are wrong. Nothing was imported.")
        summary = f"{result.added} added, {result.changed} changed, {result.unchanged} unchanged"
        self.stdout.write(f"{summary}{'; nothing was saved' if dry_run else ''}.")

    def _report(self, row: Row) -> None:
        self.stderr.write(f"Line {row.line}: {row.problem}")
