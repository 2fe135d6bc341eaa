"""Sweeps over the site's deployments, for ``refresh_airisk_tokens``, the tasks of schedulers and the admin."""

import logging
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from itertools import groupby
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured

from . import conf, sealing
from .events import log
from .models import AIRiskToken, AIRiskTokenQuerySet
from .notices.gathering import together
from .tokens.report import BY_HAND, NOT_OBTAINED, RENEWED_ELSEWHERE, Report
from .tokens.selection import Selection
from .tokens.sweep import sweep

logger = logging.getLogger("airisk_oauth.sweep")

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class WrongOption(ValueError):
    """An option has a value that makes no sense; no token was tried."""


def refresh_tokens(
    within: str | timedelta = "10m", deployment: str | None = None, limit: int | None = None, workers: int = 8
) -> dict[str, Any]:
    """Renew the tokens that have expired or expire soon, as ``refresh_airisk_tokens`` does.

    On SIGTERM or SIGINT in the main thread it finishes and saves what is in flight, and begins nothing more; then the
    handler that was there before gets the signal.

    :param within: renew what expires within this time: ``"90s"``, ``"10m"``, ``"2h"``, or a ``timedelta``.
    :param deployment: only this deployment's tokens, by its alias.
    :param limit: at most this many tokens.
    :param workers: number of HTTP requests at a time.
    :returns: what the command prints with ``--json``: how many tokens were ``renewed``, ``refused``, ``unavailable`` or
        ``skipped``, and how many that are due are ``paused`` after a failure; the ``seconds`` it took; the counts of
        each deployment in ``deployments``; in ``needs_person`` the tokens that this run has found to need a person; in
        ``client_refused`` the deployments that do not accept the site.
    :raises WrongOption: an option has a value that makes no sense.
    :raises django.core.exceptions.ImproperlyConfigured: a setting is wrong. If a function returns the deployments and
        one of them is wrong, the others are swept first.
    :raises django.db.Error: the database failed. What was renewed is saved if that is possible.
    """
    began = time.monotonic()
    selections = selections_of(parse_duration("within", within), deployment)
    workers, limit = parse_count("workers", workers), None if limit is None else parse_count("limit", limit)
    with stopped_by_signals(repeat=True) as stop:
        reports = run(selections, workers=workers, limit=limit, stop=stop)
    for fault in faults_of_others(selections, deployment):
        raise ImproperlyConfigured(fault)
    return summary(reports, began)


@together()
def renew_chosen(tokens: AIRiskTokenQuerySet) -> Report:
    """Renew these tokens now, whatever their expiry, and report on all of them together.

    Those of a deployment that the settings do not have, or that renews nothing silently, are skipped with the reason.
    """
    report = Report()
    rows = tokens.order_by("deployment", "pk").values_list("deployment", "pk")
    for alias, group in groupby(rows, key=lambda row: row[0]):
        pks = [pk for _alias, pk in group]
        try:
            deployment = conf.deployment(alias)
        except ImproperlyConfigured as error:
            report.skip(str(error).rstrip("."), len(pks))
            continue
        if deployment.silent_renewal:
            swept = sweep(Selection(deployment, within=None, pks=pks))
            # Every chosen token is in the report, those that a sweep leaves out as well.
            rows_without_token = AIRiskToken.objects.primary().filter(pk__in=pks, sealed="")
            swept.skip(NOT_OBTAINED, min(rows_without_token.count(), len(pks) - swept.counts.total()))
            swept.skip(RENEWED_ELSEWHERE, len(pks) - swept.counts.total())
            report.add(swept)
        else:
            report.skip(BY_HAND, len(pks))
    return report


def selections_of(within: timedelta | None, alias: str | None, **options: Any) -> list[Selection]:
    """Return what to renew on this deployment, or on each.

    :param options: what else a :class:`~airisk_oauth.tokens.selection.Selection` takes.
    """
    aliases = conf.aliases() if alias is None else [alias]
    # Wrong keys are found out before AIRisk is asked for a token that could not be encrypted.
    sealing.key_ids()
    usable = conf.usable(aliases)
    if not usable:
        # Says what is wrong with the first one.
        usable = [conf.deployment(each) for each in aliases]
    return [Selection(deployment, within=within, **options) for deployment in usable]


def faults_of_others(selections: list[Selection], alias: str | None) -> list[str]:
    """Return what is wrong with the deployments that :func:`selections_of` left out."""
    left_out = set([alias] if alias else conf.aliases()) - {each.deployment.alias for each in selections}
    faults: list[str] = []
    for each in sorted(left_out):
        # It may have disappeared meanwhile.
        with suppress(ImproperlyConfigured):
            faults += map(str, conf.problems_of(each))
    return faults


@together()
def run(
    selections: list[Selection],
    *,
    workers: int,
    limit: int | None,
    stop: threading.Event,
    progress: Callable[[str], object] = lambda _outcome: None,
) -> dict[str, Report]:
    """Sweep one deployment after the other, and return the reports by alias.

    :param limit: at most this many tokens, all deployments together.
    """
    reports = {}
    for selection in selections:
        began = time.monotonic()
        report = sweep(replace(selection, limit=limit), workers=workers, stop=stop, progress=progress)
        reports[selection.deployment.alias] = report
        _log(selection.deployment.alias, report, duration=round(time.monotonic() - began, 3))
        limit = None if limit is None else limit - report.counts.total()
    return reports


def _log(alias: str, report: Report, duration: float) -> None:
    message = (
        "A sweep of deployment %(deployment)s took %(duration).1f s: %(renewed)s renewed, %(refused)s refused, "
        "%(unavailable)s unavailable, %(skipped)s skipped, %(paused)s paused"
    )
    level = logging.INFO if report.is_clean else logging.WARNING
    fields: dict[str, Any] = {"deployment": alias, "duration": duration, **report.as_numbers()}
    log(logger, level, "sweep.finished", message, **fields)


def summary(reports: dict[str, Report], began: float) -> dict[str, Any]:
    """Return the reports as one object that JSON can have.

    :param began: when the run began, on the monotonic clock.
    """
    total = Report()
    for report in reports.values():
        total.add(report)
    return {
        **total.as_numbers(),
        "seconds": round(time.monotonic() - began, 1),
        "deployments": {alias: report.as_numbers() for alias, report in reports.items()},
        "needs_person": [trouble.as_json() for trouble in total.needs_person],
        "client_refused": [alias for alias, report in reports.items() if report.client_refused],
    }


def parse_duration(option: str, text: str | timedelta) -> timedelta:
    if isinstance(text, timedelta):
        return text
    match = re.fullmatch(r"(\d{1,6})([smhd])", text, re.ASCII)
    if match is None:
        raise WrongOption(f"{option}: {text!r} is not a duration such as 90s, 10m or 2h.")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def parse_count(option: str, value: str | int) -> int:
    if not re.fullmatch(r"[1-9]\d{0,8}", str(value), re.ASCII):
        raise WrongOption(f"{option}: {value!r} is not a whole number from 1 on.")
    return int(value)


@contextmanager
def stopped_by_signals(*, repeat: bool = False) -> Iterator[threading.Event]:
    """Provide an event that SIGINT and SIGTERM set; in a thread, which gets no signals, nothing sets it.

    :param repeat: whether to send the signal again afterwards, to the handler of a worker that has to exit, too.
    """
    stop, received = threading.Event(), set[int]()

    def note(number: int, _frame: Any) -> None:
        received.add(number)
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    # A handler that is not Python's, such as uWSGI's, could not be put back.
    ours = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is not None]
    before = {number: signal.signal(number, note) for number in ours}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for each in received if repeat else ():
            signal.raise_signal(each)
