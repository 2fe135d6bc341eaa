"""Imports AIRisk identities from a CSV file: all of them, or none if any row is wrong."""

from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error as DatabaseError

from airisk_oauth import conf
from airisk_oauth.management.importing import Import, UnreadableFile


class Command(BaseCommand):
    help = (
        "Imports AIRisk identities from a CSV file with the columns user, userid and, optionally, deployment and label."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", type=Path, help="a UTF-8 file with a header row; users are named by natural key")
        parser.add_argument("--deployment", default=conf.DEFAULT_ALIAS, help="the deployment of rows that name none")
        parser.add_argument("--dry-run", action="store_true", help="report what would change, without saving it")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            with options["file"].open(encoding="utf-8-sig", newline="") as lines:
                rows = Import(lines, options["deployment"])
        except (OSError, UnreadableFile, ImproperlyConfigured) as error:
            raise CommandError(f"{options['file']} cannot be read: {error}") from None
        for row in rows.wrong:
            self.stderr.write(f"Line {row.line}: {row.problem}")
        if rows.wrong:
            raise CommandError(f"{len(rows.wrong)} of {len(rows.rows)} rows are wrong. Nothing was imported.")
        try:
            changes = rows.save(dry_run=options["dry_run"])
        except DatabaseError as error:
            raise CommandError(f"Nothing was imported: {error}") from None
        summary = f"{len(changes.added)} added, {len(changes.changed)} changed, {changes.unchanged} unchanged"
        self.stdout.write(f"{summary}{'; nothing was saved' if options['dry_run'] else ''}.")
