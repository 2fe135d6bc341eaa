"""Test each deployment for real, and report how to fix each problem, and who can. A script reads the exit status."""

from typing import Any

from django.core.exceptions import ImproperlyConfigured, ObjectDoesNotExist
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError

from airisk_oauth import conf
from airisk_oauth.diagnosis.faults import SERVER
from airisk_oauth.diagnosis.steps import diagnose
from airisk_oauth.management.users import find_user


class Command(BaseCommand):
    help = (
        "Tests each AIRisk deployment step by step, and tells you how to fix each problem, and who can. "
        "Finds out which CODE_FROM a deployment needs. Stores no token. Exit status: 0 if healthy, 1 if not."
    )
    # This command is for finding wrong settings, so it has to run in spite of them.
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--deployment", metavar="ALIAS", help="test only this deployment")
        parser.add_argument(
            "--user",
            metavar="NAME",
            help="test as this user (by natural key) instead of as the application; "
            "the best way to find out which CODE_FROM to set",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        user = None if options["user"] is None else _user(options["user"])
        alias = options["deployment"]
        try:
            if alias is not None and conf.is_unknown(alias):
                raise CommandError(f"--deployment: AIRISK_OAUTH has no deployment {alias!r}.")
            aliases = conf.aliases() if alias is None else [alias]
            if not aliases:
                self.stdout.write(f"There is no deployment yet: {conf.DEPLOYMENTS.path} returned none.")
            faults = sum(self._report(each, user) for each in aliases)
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from None
        if faults:
            raise CommandError("Not healthy.")

    def _report(self, alias: str, user: Any) -> int:
        """Print the findings for a deployment, and return the number of faults."""
        self.stdout.write(f"{alias}:")
        faults = 0
        for step, message, remedy in diagnose(alias, user):
            self.stdout.write(f"  {'FAULT' if remedy else 'ok':<6}{step}: {message}")
            if remedy:
                faults += 1
                self.stdout.write(f"        {remedy}")
        return faults


def _user(name: str) -> Any:
    try:
        return find_user(name)
    except ObjectDoesNotExist:
        raise CommandError(f"There is no user {name!r}.") from None
    except DatabaseError as error:
        raise CommandError(
            f"The users cannot be read ({type(error).__name__}). {SERVER} Make sure that the database is running, "
            "and run manage.py migrate."
        ) from None
