"""Renew the tokens that have expired or expire soon; to be run every few minutes by cron or the like."""

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured, ObjectDoesNotExist
from django.core.management.base import CommandError, CommandParser
from django.db import Error as DatabaseError
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from airisk_oauth import conf, refresh
from airisk_oauth.management.settings import NOTHING_TRIED, ChecksSettings
from airisk_oauth.management.users import find_user, names_of
from airisk_oauth.tokens.report import Report
from airisk_oauth.tokens.selection import Selection

NOT_ALL: Final = 1
#: Without a terminal, progress is printed as a line, once in this many seconds.
LINE_EVERY: Final = 15.0


class Command(ChecksSettings):
    help = (
        "Renews AIRisk tokens that have expired or expire soon. "
        "Exit status: 0 all is well, 1 some tokens were not renewed, 2 nothing was tried."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--within", default="10m", metavar="TIME", help="renew what expires within 90s, 10m, 2h … (default: 10m)"
        )
        parser.add_argument("--all", action="store_true", help="renew all, whatever their expiry, last use or failures")
        parser.add_argument("--deployment", metavar="ALIAS", help="only tokens of this deployment")
        parser.add_argument("--user", metavar="NAME", help="only tokens of this user (natural key)")
        parser.add_argument("--limit", metavar="N", help="at most N tokens")
        parser.add_argument("--workers", default=8, metavar="N", help="N requests at a time (default: 8)")
        parser.add_argument("--dry-run", action="store_true", help="print how many would be renewed, and renew none")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        began = time.monotonic()
        try:
            selections, workers = _selections(options), refresh.parse_count("workers", options["workers"])
            limit = None if options["limit"] is None else refresh.parse_count("limit", options["limit"])
            plan = _plan(selections, limit)
        except refresh.WrongOption as error:
            raise CommandError(f"--{error}", returncode=NOTHING_TRIED) from None
        except (ImproperlyConfigured, DatabaseError) as error:
            raise CommandError(f"Nothing could be tried: {error}", returncode=NOTHING_TRIED) from None
        if options["dry_run"]:
            self._print_plan(plan, as_json=options["json"])
            return
        progress = self._progress(sum(plan.values()), quiet=options["json"])
        try:
            with refresh.stopped_by_signals() as stop, progress as count:
                reports = refresh.run(selections, workers=workers, limit=limit, stop=stop, progress=count)
        except (ImproperlyConfigured, DatabaseError) as error:
            raise CommandError(f"Broken off; what was renewed is saved: {error}", returncode=NOT_ALL) from None
        for report in reports.values():
            report.look_up_names(names_of)
        self._print(reports, began, as_json=options["json"])
        others = refresh.faults_of_others(selections, options["deployment"])
        if others or not all(report.is_clean for report in reports.values()):
            faults = [fault for alias, report in reports.items() for fault in report.faults(alias)]
            raise CommandError(" ".join(["Not all tokens were renewed.", *faults, *others]), returncode=NOT_ALL)

    @contextmanager
    def _progress(self, total: int, *, quiet: bool) -> Iterator[Callable[[str], object]]:
        """Provide a function to call after each token: it moves a bar on a terminal, and elsewhere prints lines."""
        if sys.stderr.isatty() and not quiet:
            bar = tqdm(total=total, unit="token", dynamic_ncols=True)
            with bar, logging_redirect_tqdm(_loggers_on_terminal()):
                yield lambda _outcome: bar.update()
            return
        done, printed_at = 0, time.monotonic()

        def count(_outcome: str) -> None:
            nonlocal done, printed_at
            done += 1
            if not quiet and time.monotonic() - printed_at > LINE_EVERY:
                printed_at = time.monotonic()
                self.stdout.write(f"{done} of {total} tokens done.")

        yield count

    def _print_plan(self, plan: dict[str, int], *, as_json: bool) -> None:
        if as_json:
            self.stdout.write(json.dumps({"would_renew": sum(plan.values()), "deployments": plan}))
            return
        for alias, number in plan.items():
            self.stdout.write(f"{alias}: {number} to renew.")

    def _print(self, reports: dict[str, Report], began: float, *, as_json: bool) -> None:
        summary = refresh.summary(reports, began)
        if as_json:
            self.stdout.write(json.dumps(summary))
            return
        for alias, report in reports.items():
            for line in report.lines(alias):
                self.stdout.write(line)
        self.stdout.write(f"Done in {summary['seconds']} s.")


def _loggers_on_terminal() -> list[logging.Logger]:
    """Return the loggers whose lines would break into the progress bar."""
    others = logging.Logger.manager.loggerDict.values()
    every = [logging.getLogger(), *(each for each in others if isinstance(each, logging.Logger))]
    found = [logger for logger in every if any(map(_writes_to_terminal, logger.handlers))]
    ours = logging.getLogger("airisk_oauth")
    # Without any handler, Python itself prints warnings.
    return found if ours.hasHandlers() else [*found, ours]


def _writes_to_terminal(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.StreamHandler) and handler.stream in (sys.stdout, sys.stderr)


def _selections(options: dict[str, Any]) -> list[Selection]:
    within = None if options["all"] else refresh.parse_duration("within", options["within"])
    user_id = None if options["user"] is None else _user_id(options["user"])
    alias = options["deployment"]
    if alias is not None and conf.is_unknown(alias):
        raise refresh.WrongOption(f"deployment: AIRISK_OAUTH has no deployment {alias!r}.")
    return refresh.selections_of(within, alias, user_id=user_id)


def _user_id(name: str) -> Any:
    try:
        return find_user(name).pk
    except ObjectDoesNotExist:
        raise CommandError(f"--user: there is no user {name!r}.", returncode=NOTHING_TRIED) from None


def _plan(selections: list[Selection], limit: int | None) -> dict[str, int]:
    """Return how many tokens are to be renewed on each deployment."""
    plan: dict[str, int] = {}
    for selection in selections:
        number = selection.total()
        plan[selection.deployment.alias] = number if limit is None else min(number, limit - sum(plan.values()))
    return plan
