"""Renew the tokens that have ended or soon will; to be run every few minutes by cron or the like."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured, ObjectDoesNotExist
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error as DatabaseError
from tqdm import tqdm

from airisk_oauth import refresh
from airisk_oauth.management.users import find_user
from airisk_oauth.tokens.report import Report
from airisk_oauth.tokens.sweep import Sweep

NOT_ALL: Final = 1
NOTHING_TRIED: Final = 2
#: Where there is no terminal, progress is a line after so many seconds.
LINE_EVERY: Final = 15.0
#: How many tokens that need a person are named; the log names all.
NAMED: Final = 50


class Command(BaseCommand):
    help = "Renews AIRisk tokens that have ended or end soon. Exit status: 0 all well, 1 some not, 2 nothing tried."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--within", default="10m", metavar="TIME", help="renew what ends within 90s, 10m, 2h …")
        parser.add_argument("--all", action="store_true", help="renew all, whatever their end, idleness or cool-down")
        parser.add_argument("--deployment", metavar="ALIAS", help="only this deployment's tokens")
        parser.add_argument("--user", metavar="NAME", help="only this user's tokens (by natural key)")
        parser.add_argument("--limit", metavar="N", help="at most so many tokens")
        parser.add_argument("--workers", default=8, metavar="N", help="so many requests at a time (default: 8)")
        parser.add_argument("--dry-run", action="store_true", help="say what would be renewed, and renew nothing")
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        began = time.monotonic()
        try:
            sweeps, limit = _sweeps(options), refresh.count(options["limit"])
            if options["dry_run"]:
                self._tell_plan(sweeps, limit, as_json=options["json"])
                return
            total = sum(sweep.total() for sweep in sweeps)
        except refresh.WrongOption as error:
            raise CommandError(str(error), returncode=NOTHING_TRIED) from None
        except (ImproperlyConfigured, DatabaseError) as error:
            raise CommandError(f"Nothing could be tried: {error}", returncode=NOTHING_TRIED) from None
        try:
            reports = self._run(sweeps, limit, total, quiet=options["json"])
        except (ImproperlyConfigured, DatabaseError) as error:
            raise CommandError(f"Broken off, what was renewed is saved: {error}", returncode=NOT_ALL) from None
        self._tell(reports, began, as_json=options["json"])
        if not all(report.is_clean for report in reports.values()):
            raise CommandError(" ".join(_shortcomings(reports)), returncode=NOT_ALL)

    def _run(self, sweeps: list[Sweep], limit: int | None, total: int, *, quiet: bool) -> dict[str, Report]:
        with (
            refresh.stopped_by_signals(sweeps),
            self._progress(total if limit is None else min(total, limit), quiet=quiet) as progress,
        ):
            return refresh.run(sweeps, limit, progress)

    @contextmanager
    def _progress(self, total: int, *, quiet: bool) -> Iterator[Callable[[str], object]]:
        if sys.stderr.isatty() and not quiet:
            with tqdm(total=total, unit="token", dynamic_ncols=True) as bar:
                yield lambda _what: bar.update()
            return
        done, said = 0, time.monotonic()

        def count(_what: str) -> None:
            nonlocal done, said
            done += 1
            if not quiet and time.monotonic() - said > LINE_EVERY:
                said = time.monotonic()
                self.stdout.write(f"{done} of {total} tokens looked at.")

        yield count

    def _tell_plan(self, sweeps: list[Sweep], limit: int | None, *, as_json: bool) -> None:
        plan: dict[str, int] = {}
        for sweep in sweeps:
            sweep.limit = None if limit is None else limit - sum(plan.values())
            plan[sweep.deployment.alias] = sweep.total()
        if as_json:
            self.stdout.write(json.dumps({"would_renew": sum(plan.values()), "deployments": plan}))
            return
        for alias, number in plan.items():
            self.stdout.write(f"{alias}: {number} to renew.")

    def _tell(self, reports: dict[str, Report], began: float, *, as_json: bool) -> None:
        answer = refresh.answer(reports, began)
        if as_json:
            self.stdout.write(json.dumps(answer))
            return
        for alias, counts in answer["deployments"].items():
            self.stdout.write(f"{alias}: {', '.join(f'{number} {what}' for what, number in counts.items())}.")
            for reason, number in reports[alias].reasons.items():
                self.stdout.write(f"  {number} skipped: {reason}.")
            if reports[alias].client_refused:
                self.stdout.write(f"  {_client_refused(alias)}")
            for words in _named(reports[alias]):
                self.stdout.write(f"  Needs a person: {words}.")
        self.stdout.write(f"Done in {answer['seconds']} s.")


def _shortcomings(reports: dict[str, Report]) -> Iterator[str]:
    """Yield what is wrong: errors reach a mailbox where the output is thrown away."""
    yield "Not all tokens were renewed."
    for alias, report in reports.items():
        if report.client_refused:
            yield _client_refused(alias)
        if named := list(_named(report)):
            yield f"A person is needed for {', '.join(named)}."


def _client_refused(alias: str) -> str:
    return f"AIRisk does not accept this site for {alias}: try check_airisk --deployment {alias}."


def _named(report: Report) -> Iterator[str]:
    yield from map(str, report.needs_person[:NAMED])
    if (more := len(report.needs_person) - NAMED) > 0:
        yield f"and {more} more, which the log names"


def _sweeps(options: dict[str, Any]) -> list[Sweep]:
    within = None if options["all"] else refresh.duration(options["within"])
    sweeps = refresh.plan(within, options["deployment"], options["workers"])
    if options["user"] is not None:
        user_id = _user_id(options["user"])
        for sweep in sweeps:
            sweep.user_id = user_id
    return sweeps


def _user_id(name: str) -> Any:
    try:
        return find_user(name).pk
    except ObjectDoesNotExist:
        raise CommandError(f"There is no user {name!r}.", returncode=NOTHING_TRIED) from None
