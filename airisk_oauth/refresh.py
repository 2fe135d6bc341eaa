"""One run over the site's deployments: what ``refresh_airisk_tokens`` and the tasks for schedulers share."""

import logging
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from typing import Any, Final

from . import conf
from .events import log
from .notices.gathering import together
from .tokens.report import COUNTED, Report, Trouble
from .tokens.sweep import Sweep

logger = logging.getLogger("airisk_oauth.sweep")

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class WrongOption(ValueError):
    """An option that means nothing here; no token was tried."""


def refresh_tokens(
    within: str | timedelta = "10m", deployment: str | None = None, limit: int | None = None, workers: int = 8
) -> dict[str, Any]:
    """Renew the tokens that have ended or end soon, as ``refresh_airisk_tokens`` does.

    A SIGTERM or SIGINT in the main thread lets it finish and save what is in flight and begin nothing more; then the
    handler that was there gets it.

    :param within: what ends within this time: ``"90s"``, ``"10m"``, ``"2h"``, or a ``timedelta``.
    :param deployment: only this deployment's tokens, by its alias.
    :param limit: so many tokens at the most.
    :param workers: so many requests at a time.
    :returns: what the command prints with ``--json``: how many tokens were ``renewed``, ``refused``, ``unavailable`` or
        ``skipped``, the ``seconds`` it took, the counts by deployment in ``deployments``, in ``needs_person`` those
        tokens that need a person since this run, in ``client_refused`` the deployments that do not accept the site.
    :raises WrongOption: when an option means nothing.
    :raises django.core.exceptions.ImproperlyConfigured: when a setting is wrong.
    :raises django.db.Error: when the database fails. What was renewed is saved where it can be.
    """
    began = time.monotonic()
    sweeps = plan(duration(within), deployment, workers)
    with stopped_by_signals(sweeps, repeat=True):
        reports = run(sweeps, count(limit))
    return answer(reports, began)


def plan(within: timedelta | None, alias: str | None, workers: int | str) -> list[Sweep]:
    """Return a sweep for this deployment, or for each."""
    return [
        Sweep(conf.deployment(each), within=within, workers=count(workers) or 1)
        for each in ([alias] if alias is not None else conf.aliases())
    ]


def run(
    sweeps: list[Sweep], limit: int | None, progress: Callable[[str], object] = lambda _what: None
) -> dict[str, Report]:
    """Sweep one deployment after the other, so many tokens in all at the most, and report by alias."""
    reports = {}
    with together():
        for sweep in sweeps:
            sweep.limit, began = limit, time.monotonic()
            report = reports[sweep.deployment.alias] = sweep.run(progress)
            _log(sweep, report, duration=round(time.monotonic() - began, 3))
            limit = None if limit is None else limit - report.counts.total()
    return reports


def _log(sweep: Sweep, report: Report, duration: float) -> None:
    message = (
        "A sweep of deployment %(deployment)s took %(duration).1f s: %(renewed)s renewed, %(refused)s refused, "
        "%(unavailable)s unavailable, %(skipped)s skipped"
    )
    level = logging.INFO if report.is_clean else logging.WARNING
    fields: dict[str, Any] = {"deployment": sweep.deployment.alias, "duration": duration, **counts(report)}
    log(logger, level, "sweep.finished", message, **fields)


def counts(report: Report) -> dict[str, int]:
    return {what: report.counts[what] for what in COUNTED}


def answer(reports: dict[str, Report], began: float) -> dict[str, Any]:
    everything = Report()
    for report in reports.values():
        everything.add(report)
    of_each = {alias: counts(report) for alias, report in reports.items()}
    return {
        **counts(everything),
        "seconds": round(time.monotonic() - began, 1),
        "deployments": of_each,
        "needs_person": [_plain(trouble) for trouble in everything.needs_person],
        "client_refused": [alias for alias, report in reports.items() if report.client_refused],
    }


def _plain(trouble: Trouble) -> dict[str, Any]:
    """Return it as JSON can have it: keys that are no numbers, such as UUIDs, as strings."""
    values = asdict(trouble).items()
    return {name: value if isinstance(value, int | None) else str(value) for name, value in values}


def duration(text: str | timedelta) -> timedelta:
    if isinstance(text, timedelta):
        return text
    match = re.fullmatch(r"(\d{1,6})([smhd])", text, re.ASCII)
    if match is None:
        raise WrongOption(f"{text!r} is no time such as 90s, 10m or 2h.")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def count(value: str | int | None) -> int | None:
    if value is None:
        return None
    if not re.fullmatch(r"[1-9]\d{0,8}", str(value), re.ASCII):
        raise WrongOption(f"{value!r} is no number from 1 on.")
    return int(value)


@contextmanager
def stopped_by_signals(sweeps: list[Sweep], *, repeat: bool = False) -> Iterator[None]:
    """Finish and save what is in flight on Ctrl-C and SIGTERM; where signals cannot be had, in a thread, do nothing.

    :param repeat: whether a signal is sent again afterwards: to the handler of a worker, which has to end, too.
    """
    heard: set[int] = set()

    def stop(number: int, _frame: Any) -> None:
        heard.add(number)
        for sweep in sweeps:
            sweep.stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # A handler that is not Python's, as uWSGI's are, could not be put back.
    ours = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is not None]
    before = {number: signal.signal(number, stop) for number in ours}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for each in heard if repeat else ():
            signal.raise_signal(each)
