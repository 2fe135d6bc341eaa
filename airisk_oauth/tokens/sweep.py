"""Renew many tokens: claim a page of rows, ask AIRisk in a pool of workers, save the outcomes and release the rows.

The database stays in the calling thread. Several hosts may sweep at the same time: each skips the rows that another
one has claimed.
"""

import logging
import threading
import time
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from functools import partial
from typing import Any, Final
from uuid import uuid4

from django.utils import timezone

from ..database.patience import Patience
from ..events import log
from ..models import AIRiskToken, AIRiskTokenQuerySet
from .backlog import Backlog
from .client_check import ClientCheck, is_client_doubtful
from .exclusions import reasons_to_skip
from .held_back import announce_held_back
from .leases import claim, lease_seconds, save_and_release
from .outcomes import Outcome, announce, apply
from .report import (
    AIRISK_DOWN,
    CLIENT_REJECTED,
    DEACTIVATED,
    FOR_A_PERSON,
    INTERRUPTED,
    LEASED_ELSEWHERE,
    RENEWED_ELSEWHERE,
    Report,
)
from .selection import TROUBLE_COLUMNS, Selection, is_known_to_need_person, note_trouble
from .tally import Progress, Tally
from .workers import Workers

logger = logging.getLogger("airisk_oauth.sweep")

#: For how many seconds results are gathered before they are saved together.
GATHER: Final = 0.1
#: How many tokens are claimed at a time, and how few may be in flight before more are claimed, as multiples of the
#: workers: enough to keep them busy while results are saved, and few enough that no lease expires in the queue.
PAGE: Final = 2
RESERVE: Final = 3
#: For how many seconds to wait for a database that went away, so that its restart costs no token.
PATIENCE: Final = 30.0
#: After how many seconds to look again whether the rows in the queue are still leased by this sweep.
LOOK_AGAIN: Final = 5.0


def sweep(
    selection: Selection,
    *,
    workers: int = 8,
    stop: threading.Event | None = None,
    progress: Progress = lambda _outcome: None,
) -> Report:
    """Renew the selected tokens.

    :param workers: number of HTTP requests at a time.
    :param stop: once it is set, by a signal handler say, what is in flight is finished and saved, and nothing is begun.
    :param progress: called for each token with what became of it, one of :data:`~airisk_oauth.tokens.report.COUNTED`.
    :raises django.db.Error: the database failed. What AIRisk has granted is saved if that is possible.
    """
    with Workers(selection.deployment, workers) as pool:
        return _Sweep(selection, pool, stop or threading.Event(), progress).run()


class _Sweep:
    def __init__(self, selection: Selection, workers: Workers, stop: threading.Event, progress: Progress) -> None:
        self.selection, self.workers, self.stop = selection, workers, stop
        self.deployment = selection.deployment
        self.page_size = PAGE * workers.number
        self.client = ClientCheck(self.deployment, workers.ask)
        self.tally = Tally(progress)
        self.backlog = Backlog(selection)
        self.patiently = Patience(AIRiskToken.objects.primary().db, PATIENCE, self._log_database_wait)
        self.in_flight: dict[Future[Outcome], AIRiskToken] = {}
        self.lease = uuid4()
        # A lease outlasts the renewals that are ahead of it in the queue.
        self.lease_seconds = (RESERVE + PAGE - 1) * self.deployment.timeout[1] + lease_seconds(self.deployment)
        self.leases_seen_at = time.monotonic()

    def run(self) -> Report:
        expected = self.backlog.size
        # First: what fails in this sweep is paused, too.
        self.tally.report.paused = self.patiently(self.selection.paused)
        try:
            self._renew_all()
        except BaseException:
            # A signal handler may raise anywhere.
            self._rescue()
            raise
        report = self.tally.report
        report.client_refused = self.client.is_rejected
        self.tally.name_refused(except_unauthorized=self.client.is_rejected and not self.tally.renewed)
        self.patiently(partial(announce_held_back, self.deployment, is_accepted=self.client.is_accepted))
        if self.client.suspicion or not self.backlog.leaves_known:
            left = expected - report.counts.total()
            given_up = INTERRUPTED if self.stop.is_set() else self._given_up
            # Progress stands still at what was not tried.
            (report if given_up else self.tally).skip(given_up or LEASED_ELSEWHERE, left)
        report.skip(DEACTIVATED, self.selection.deactivated())
        return report

    def _renew_all(self) -> None:
        if self.patiently(partial(is_client_doubtful, self.deployment)):
            self._check_client()
        self._claim_enough()
        while self.in_flight:
            self._save(self._finished())
            self._drop_leased_elsewhere()
            if self.client.is_due and not self._is_over:
                self._check_client()
            if self._is_over:
                self._withdraw()
            self._claim_enough()
        if not self._given_up:
            self.client.conclude(ask=not self.tally.renewed and not self.stop.is_set())

    @property
    def _given_up(self) -> str:
        """Why the rest of the deployment is skipped; empty while it is worth trying."""
        if self.client.is_rejected:
            return CLIENT_REJECTED
        return AIRISK_DOWN if self.tally.is_airisk_down else ""

    @property
    def _is_over(self) -> bool:
        return bool(self._given_up) or self.stop.is_set()

    def _claim_enough(self) -> None:
        """Claim tokens and hand them to the workers, until enough are in flight or none is left."""
        while not self._is_over and len(self.in_flight) <= RESERVE * self.workers.number and (page := self._claim()):
            for token in self._renewable(page):
                self.in_flight[self.workers.submit(token.requested_userid)] = token

    def _claim(self) -> list[AIRiskToken]:
        is_sampling = self.client.is_sampling
        tries_known = not is_sampling and (self.selection.within is None or not self.client.has_refused_enough_again)
        claim_page = partial(self.backlog.claim_page, self._lease, self.page_size)
        return self.patiently(partial(claim_page, from_far_end=is_sampling, tries_known=tries_known))

    def _lease(self, tokens: AIRiskTokenQuerySet, limit: int) -> list[AIRiskToken]:
        return claim(tokens, self.lease, now=timezone.now(), seconds=self.lease_seconds, limit=limit)

    def _renewable(self, page: list[AIRiskToken]) -> list[AIRiskToken]:
        """Release the tokens that must not be renewed, and return the others."""
        reasons = self.patiently(partial(reasons_to_skip, self.deployment, page))
        skipped = [token for token in page if token.pk in reasons]
        new = [token for token in skipped if reasons[token.pk] in FOR_A_PERSON and not is_known_to_need_person(token)]
        self._release([token for token in skipped if token not in new])
        for token in new:
            note_trouble(token, timezone.now())
        for token in self._release(new, TROUBLE_COLUMNS):
            self.tally.name(token, reasons[token.pk])
        for token in skipped:
            self.tally.skip(reasons[token.pk])
        return [token for token in page if token.pk not in reasons]

    def _check_client(self) -> None:
        """Check the client while nothing else waits for a worker; what waited is claimed again later."""
        withdrawn = self._withdraw()
        self.client.run(self.in_flight.values())
        self.backlog.put_back(withdrawn)

    def _withdraw(self) -> list[AIRiskToken]:
        """Release, and return, the tokens that no worker has begun with."""
        queued = [future for future in self.in_flight if future.cancel()]
        tokens = [self.in_flight[future] for future in queued]
        self._release(tokens)
        self._forget(queued)
        return tokens

    def _drop_leased_elsewhere(self) -> None:
        """Drop the tokens in the queue that a caller has claimed meanwhile; a slow AIRisk leaves time for that."""
        if time.monotonic() - self.leases_seen_at < LOOK_AGAIN:
            return
        self.leases_seen_at = time.monotonic()
        tokens = AIRiskToken.objects.primary().filter(pk__in=[token.pk for token in self.in_flight.values()])
        ours = self.patiently(lambda: set(tokens.filter(lease=self.lease).values_list("pk", flat=True)))
        lost = [future for future, token in self.in_flight.items() if token.pk not in ours and future.cancel()]
        self._forget(lost)
        self.tally.skip(RENEWED_ELSEWHERE, len(lost))

    def _finished(self) -> list[Future[Outcome]]:
        """Wait for a call to finish, and a moment for a page of them, so that one write serves several tokens."""
        wait(self.in_flight, return_when=FIRST_COMPLETED)
        wait([*self.in_flight][: self.page_size], timeout=GATHER)
        return [future for future in self.in_flight if future.done()][: self.page_size]

    def _save(self, finished: list[Future[Outcome]]) -> None:
        """Save the outcomes of these calls, and raise what made one of them crash."""
        calls = [(self.in_flight[future], future) for future in finished]
        outcomes = [(token, future.result()) for token, future in calls if future.exception() is None]
        known = {token.pk for token, _outcome in outcomes if is_known_to_need_person(token)}
        saved = self._save_and_announce(outcomes)
        self._forget(finished)
        for token, outcome in outcomes:
            if token.pk in saved:
                self.client.note(token, outcome, was_known=token.pk in known)
                self.tally.count(token, outcome, was_known=token.pk in known)
            else:
                self.tally.skip(RENEWED_ELSEWHERE)
        for future in finished:
            future.result()

    def _save_and_announce(self, outcomes: list[tuple[AIRiskToken, Outcome]]) -> set[Any]:
        """Write outcomes to the rows that are still leased by this sweep, and return the keys of these rows.

        A row that lost its lease holds something newer, or is gone: its outcome is dropped.
        """
        now = timezone.now()
        first = {token.pk for token, _outcome in outcomes if not token.sealed}
        by_columns: dict[tuple[str, ...], list[AIRiskToken]] = {}
        for token, outcome in outcomes:
            by_columns.setdefault(tuple(apply(token, outcome, now)), []).append(token)
        saved = {token.pk for columns, tokens in by_columns.items() for token in self._release(tokens, columns)}
        for token, outcome in outcomes:
            if token.pk in saved:
                announce(token, outcome, is_first=token.pk in first)
        return saved

    def _release(self, tokens: list[AIRiskToken], columns: Iterable[str] = ()) -> list[AIRiskToken]:
        """Save these columns, release the rows, and return those that were still leased by this sweep."""
        return self.patiently(partial(save_and_release, tokens, self.lease, columns))

    def _forget(self, futures: list[Future[Outcome]]) -> None:
        """Take calls off those in flight, after their rows were released: until then, a rescue finds them there."""
        for future in futures:
            del self.in_flight[future]

    def _rescue(self) -> None:
        """Save what AIRisk has granted, and release every row that is leased by this sweep."""
        begun = [future for future in self.in_flight if not future.cancel()]
        wait(begun)
        with suppress(Exception):
            self._save(begun)
        with suppress(Exception):
            self._release(list(AIRiskToken.objects.primary().filter(lease=self.lease)))

    def _log_database_wait(self, error: Exception) -> None:
        message, alias = "The sweep waits for the database: %(why)s", self.deployment.alias
        log(logger, logging.WARNING, "sweep.database_wait", message, why=error, deployment=alias)
