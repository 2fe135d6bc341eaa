"""Renew the tokens that have ended or soon will; to be run every few minutes by cron or the like."""

import json
import logging
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error as DatabaseError
from tqdm import tqdm

from airisk_oauth import conf
from airisk_oauth.events import log
from airisk_oauth.sweep import COUNTED, Report, Sweep

logger = logging.getLogger("airisk_oauth.sweep")

NOT_ALL: Final = 1
NOTHING_TRIED: Final = 2
#: Where there is no terminal, progress is a line after so many seconds.
LINE_EVERY: Final = 15.0
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


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
            sweeps, limit = _sweeps(options), _count(options["limit"])
            if options["dry_run"]:
                self._tell_plan(sweeps, limit, as_json=options["json"])
                return
            total = sum(sweep.total() for sweep in sweeps)
        except (ImproperlyConfigured, DatabaseError) as error:
            raise CommandError(f"Nothing could be tried: {error}", returncode=NOTHING_TRIED) from None
        try:
            reports = self._run(sweeps, limit, total, quiet=options["json"])
        except (ImproperlyConfigured, DatabaseError) as error:
            raise CommandError(f"Broken off, what was renewed is saved: {error}", returncode=NOT_ALL) from None
        self._tell(reports, round(time.monotonic() - began, 1), as_json=options["json"])
        if not all(report.is_clean for report in reports.values()):
            raise CommandError("Not all tokens were renewed.", returncode=NOT_ALL)

    def _run(self, sweeps: list[Sweep], limit: int | None, total: int, *, quiet: bool) -> dict[str, Report]:
        reports = {}
        with (
            _stopped_by_signals([sweep.stop for sweep in sweeps]),
            self._progress(total if limit is None else min(total, limit), quiet=quiet) as progress,
        ):
            for sweep in sweeps:
                sweep.limit, began = limit, time.monotonic()
                report = reports[sweep.deployment.alias] = sweep.run(progress)
                _log(sweep, report, duration=round(time.monotonic() - began, 3))
                limit = None if limit is None else limit - report.counts.total()
        return reports

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

    def _tell(self, reports: dict[str, Report], seconds: float, *, as_json: bool) -> None:
        everything = Report()
        for report in reports.values():
            everything.add(report)
        if as_json:
            of_each = {alias: _counts(report) for alias, report in reports.items()}
            answer = {**_counts(everything), "seconds": seconds, "deployments": of_each}
            self.stdout.write(json.dumps(answer))
            return
        for alias, report in reports.items():
            words = ", ".join(f"{number} {what}" for what, number in _counts(report).items())
            self.stdout.write(f"{alias}: {words}.")
            for reason, number in report.reasons.items():
                self.stdout.write(f"  {number} skipped: {reason}.")
        self.stdout.write(f"Done in {seconds} s.")


def _sweeps(options: dict[str, Any]) -> list[Sweep]:
    alias, name = options["deployment"], options["user"]
    return [
        Sweep(
            conf.deployment(each),
            within=None if options["all"] else _duration(options["within"]),
            user_id=None if name is None else _user_id(name),
            workers=_count(options["workers"]) or 1,
        )
        for each in ([alias] if alias is not None else conf.aliases())
    ]


def _user_id(name: str) -> Any:
    users = get_user_model()
    try:
        return users._default_manager.get_by_natural_key(name).pk
    except users.DoesNotExist:
        raise CommandError(f"There is no user {name!r}.", returncode=NOTHING_TRIED) from None


def _duration(text: str | timedelta) -> timedelta:
    if isinstance(text, timedelta):
        return text
    match = re.fullmatch(r"(\d{1,6})([smhd])", text, re.ASCII)
    if match is None:
        raise CommandError(f"{text!r} is no time such as 90s, 10m or 2h.", returncode=NOTHING_TRIED)
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _count(value: str | int | None) -> int | None:
    if value is None:
        return None
    if not re.fullmatch(r"[1-9]\d{0,8}", str(value), re.ASCII):
        raise CommandError(f"{value!r} is no number from 1 on.", returncode=NOTHING_TRIED)
    return int(value)


def _counts(report: Report) -> dict[str, int]:
    return {what: report.counts[what] for what in COUNTED}


def _log(sweep: Sweep, report: Report, duration: float) -> None:
    message = (
        "A sweep of deployment %(deployment)s took %(duration).1f s: %(renewed)s renewed, %(refused)s refused, "
        "%(unavailable)s unavailable, %(skipped)s skipped"
    )
    level = logging.INFO if report.is_clean else logging.WARNING
    fields: dict[str, Any] = {"deployment": sweep.deployment.alias, "duration": duration, **_counts(report)}
    log(logger, level, "sweep.finished", message, **fields)


@contextmanager
def _stopped_by_signals(stops: list[threading.Event]) -> Iterator[None]:
    """Finish and save what is in flight on Ctrl-C and SIGTERM; where signals cannot be had, in a thread, do nothing."""

    def stop(*_args: object) -> None:
        for event in stops:
            event.set()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
