"""Renew many tokens: those of a deployment that have ended or soon will, earliest first.

A pool of workers does HTTP only; the database stays in the calling thread, which claims rows a page at a time and
saves what came back in batches. Several hosts may sweep at once: a row that one has claimed the others pass over.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import uuid4

from django.contrib.auth import get_user_model
from django.db import Error as DatabaseError
from django.db import InterfaceError, OperationalError, connections
from django.db.models import Q
from django.utils import timezone
from django.utils.module_loading import import_string
from django.utils.translation import gettext_noop

from . import flow, renewal
from .conf import Deployment
from .events import log
from .exceptions import AIRiskError, AIRiskRefused, AIRiskUnavailable, ConnectionRequired
from .models import AIRiskToken, AIRiskTokenQuerySet
from .sealing import Unreadable

if TYPE_CHECKING:
    from .transport import OAuthClient

logger = logging.getLogger("airisk_oauth.sweep")

Result = TypeVar("Result")

#: After so many tokens in a row that failed by what would fail all, the rest of the deployment is left alone.
GIVE_UP_AFTER: Final = 5
#: For how long results are gathered before they are saved together, in seconds.
GATHER: Final = 0.1
#: How many tokens are claimed at a time, and from how many under way on, as multiples of the workers: enough that they
#: have work while the database is at its own, and few enough that no lease lapses in the queue.
PAGE: Final = 2
RESERVE: Final = 3
#: For how many seconds a database that went away is waited for, so that a restart costs no token.
PATIENCE: Final = 30.0

RENEWED: Final = "renewed"
REFUSED: Final = "refused"
UNAVAILABLE: Final = "unavailable"
SKIPPED: Final = "skipped"
COUNTED: Final = (RENEWED, REFUSED, UNAVAILABLE, SKIPPED)

#: Why a token was skipped; shown translated by the admin.
HELD: Final = gettext_noop("another process is at it")
OVERTAKEN: Final = gettext_noop("another process was faster")
SOMEBODY_ELSE: Final = gettext_noop("the user's identity on AIRisk is gone or has changed")
UNRESOLVED: Final = gettext_noop("the site's USERID failed for the user")
UNREADABLE: Final = gettext_noop("the stored token cannot be opened")
LEFT_ALONE: Final = gettext_noop("left alone, because AIRisk is not available")
NOT_KNOWN: Final = gettext_noop("left alone, because AIRisk does not accept this site")
INTERRUPTED: Final = gettext_noop("interrupted")


@dataclass
class Report:
    """What a sweep did: how many tokens by what became of them, and why some were skipped."""

    counts: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(COUNTED, 0)))
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def is_clean(self) -> bool:
        """Whether every token was renewed, here or by another process."""
        troubled = sum(number for reason, number in self.reasons.items() if reason not in (HELD, OVERTAKEN))
        return not (self.counts[REFUSED] or self.counts[UNAVAILABLE] or troubled)

    def add(self, other: "Report") -> None:
        self.counts.update(other.counts)
        self.reasons.update(other.reasons)

    def skip(self, reason: str, number: int = 1) -> None:
        if number > 0:
            self.counts[SKIPPED] += number
            self.reasons[reason] += number


@dataclass
class Sweep:
    """The tokens of one deployment that are to be renewed.

    :ivar within: what ends within this time; ``None``: all, whatever their end, idleness or cool-down.
    :ivar user_id: only this user's token.
    :ivar pks: only these rows.
    :ivar limit: so many tokens at the most.
    :ivar workers: so many HTTP requests at a time.
    :ivar stop: set it, from a signal handler say, and what is in flight is finished, nothing more begun.
    """

    deployment: Deployment
    within: timedelta | None = timedelta(minutes=10)
    user_id: Any = None
    pks: list[Any] | None = None
    limit: int | None = None
    workers: int = 8
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.started = timezone.now()

    def candidates(self) -> "AIRiskTokenQuerySet":
        """Return the tokens that are to be renewed; none twice, however short a life AIRisk gives them."""
        tokens: AIRiskTokenQuerySet = (
            AIRiskToken.objects.primary()
            .filter(deployment=self.deployment.alias, renewed_at__lte=self.started)
            .exclude(sealed="")
        )
        if not self.deployment.silent_renewal:
            return tokens.none()
        if self.user_id is not None:
            tokens = tokens.filter(user=self.user_id)
        if self.pks is not None:
            tokens = tokens.filter(pk__in=self.pks)
        if self.within is None:
            return tokens
        return tokens.filter(
            Q(retry_at=None) | Q(retry_at__lte=self.started),
            expires_at__lte=self.started + self.within,
            last_used_at__gte=self.started - timedelta(days=self.deployment.renew_unused_for),
        )

    def total(self) -> int:
        number = self.candidates().count()
        return number if self.limit is None else min(number, self.limit)

    def run(self, progress: Callable[[str], object] = lambda _what: None) -> Report:
        """Renew them.

        :param progress: called for each token with what became of it, one of :data:`COUNTED`.
        """
        return _Run(self, progress).run()


class _Run:
    def __init__(self, sweep: Sweep, progress: Callable[[str], object]) -> None:
        self.sweep = sweep
        self.deployment = sweep.deployment
        self.progress = progress
        self.report = Report()
        self.lease = uuid4()
        self.patience = PATIENCE
        self.faults = 0
        self.given_up = ""
        self.unresolved: set[Any] = set()
        self.in_flight: dict[Future[renewal.Outcome], AIRiskToken] = {}
        self.done: SimpleQueue[Future[renewal.Outcome]] = SimpleQueue()
        self.of_thread = threading.local()
        self.clients = ExitStack()

    def run(self) -> Report:
        expected = self.sweep.total()
        with self.clients, ThreadPoolExecutor(self.sweep.workers) as pool:
            try:
                self._work(pool, self._pages(expected))
            except BaseException:
                # What AIRisk has granted is saved all the same, and what was claimed is free for the next sweep. A
                # signal's handler may raise anywhere: what was not yet, or no longer, to come by the queue has to.
                for future in self.in_flight:
                    future.add_done_callback(self.done.put)
                self._withdraw()
                while self.in_flight:
                    with suppress(Exception):
                        self._save()
                raise
        left = expected - self.report.counts.total()
        if self.sweep.stop.is_set():
            self._skip(INTERRUPTED, left)
        elif self.given_up:
            self._skip(self.given_up, left)
        else:
            self._skip(HELD, left)
        return self.report

    def _work(self, pool: ThreadPoolExecutor, pages: Iterator[list[AIRiskToken]]) -> None:
        exhausted = False
        while self.in_flight or not exhausted:
            while not exhausted and len(self.in_flight) <= RESERVE * self.sweep.workers:
                page = next(pages, None)
                exhausted = page is None
                for token in page or ():
                    future = pool.submit(self._renew, token)
                    self.in_flight[future] = token
                    future.add_done_callback(self.done.put)
            self._save()
            if self._is_over:
                exhausted = True
                self._withdraw()

    @property
    def _is_over(self) -> bool:
        return bool(self.given_up) or self.sweep.stop.is_set()

    def _withdraw(self) -> None:
        """Give back what no worker has begun with."""
        queued = [self.in_flight.pop(future) for future in list(self.in_flight) if future.cancel()]
        self._settle(queued, self.lease)

    def _pages(self, left: int) -> Iterator[list[AIRiskToken]]:
        """Yield claimed tokens, a page at a time, in keyset order: a page costs the same wherever it is."""
        by_end = self.sweep.within is not None
        # A lease outlasts the flows that are before it in the queue.
        queue = (RESERVE + PAGE - 1) * self.deployment.timeout[1]
        seconds = queue + renewal.lease_seconds(self.deployment)
        after = Q()
        while left > 0 and not self._is_over:
            rows = self.sweep.candidates().filter(after).order_by(*(["expires_at"] if by_end else []), "pk")
            limit = min(PAGE * self.sweep.workers, left)
            page = self._patiently(partial(rows.claim, self.lease, now=timezone.now(), seconds=seconds, limit=limit))
            if not page:
                return
            left -= len(page)
            end, pk = page[-1].expires_at, page[-1].pk
            after = Q(expires_at__gt=end) | Q(expires_at=end, pk__gt=pk) if by_end else Q(pk__gt=pk)
            yield self._wanted(page)

    def _wanted(self, page: list[AIRiskToken]) -> list[AIRiskToken]:
        """Give those back that must not be renewed, and return the others."""
        try:
            users = [token.user_id for token in page if token.user_id is not None]
            userids = self._patiently(partial(self._userids, users))
        except BaseException:
            self._settle(page, self.lease)
            raise
        reasons = {token.pk: self._reason_against(token, userids) for token in page}
        for reason in filter(None, reasons.values()):
            self._skip(reason)
        self._settle([token for token in page if reasons[token.pk]], self.lease)
        return [token for token in page if not reasons[token.pk]]

    def _reason_against(self, token: AIRiskToken, userids: dict[Any, str | None]) -> str | None:
        if token.user_id in self.unresolved:
            return UNRESOLVED
        if token.user_id is not None and userids.get(token.user_id) != token.userid:
            return SOMEBODY_ELSE
        try:
            # A host with a wrong key must not replace what the others can still open.
            token.access_token  # noqa: B018
        except Unreadable:
            return UNREADABLE
        return None

    def _userids(self, user_ids: list[Any]) -> dict[Any, str | None]:
        resolver = import_string(self.deployment.userid)
        if hasattr(resolver, "many"):
            found: dict[Any, str | None] = resolver.many(user_ids, self.deployment.alias)
            return found
        users = get_user_model()._default_manager.in_bulk(user_ids)
        return {pk: self._userid_of(user) for pk, user in users.items()}

    def _userid_of(self, user: Any) -> str | None:
        try:
            return self.deployment.userid_of(user)
        except DatabaseError:
            raise
        except Exception as error:  # noqa: BLE001 - the site's own code, asked about one user
            # One user of whom it says nothing must not keep the tokens of all others from being renewed.
            fields = {"resolver": self.deployment.userid, "user_id": user.pk, "deployment": self.deployment.alias}
            message = "%(resolver)s failed for user %(user_id)s: %(error)s"
            log(logger, logging.WARNING, "sweep.userid_failed", message, error=type(error).__name__, **fields)
            self.unresolved.add(user.pk)
            return None

    def _renew(self, token: AIRiskToken) -> renewal.Outcome:
        try:
            return self._client().run(flow.obtain_silently(self.deployment, token.userid or None))
        except AIRiskError as error:
            return error

    def _client(self) -> "OAuthClient":
        """Return this worker's own client: a connection is used by one thread."""
        from .transport import OAuthClient

        if not hasattr(self.of_thread, "client"):
            self.of_thread.client = self.clients.enter_context(OAuthClient(self.deployment))
        client: OAuthClient = self.of_thread.client
        return client

    def _save(self) -> None:
        """Save what has come back, gathered for a moment so that one write serves several tokens."""
        # One that was withdrawn is done, too.
        came = [(self.in_flight.pop(future), future) for future in [*self._gather()] if future in self.in_flight]
        outcomes = [(token, future.result()) for token, future in came if future.exception() is None]
        saved = {token.pk for token in renewal.save_outcomes(outcomes, self.lease, self._settle)}
        for token, outcome in outcomes:
            if token.pk not in saved:
                self._skip(OVERTAKEN)
                continue
            what = _word_for(outcome)
            fault = _fault_for_all(outcome)
            self.faults = self.faults + 1 if fault else 0
            if self.faults >= GIVE_UP_AFTER:
                self.given_up = fault
            self.report.counts[what] += 1
            self.progress(what)
        self._settle([token for token, future in came if future.exception()], self.lease)
        for _token, future in came:
            future.result()

    def _gather(self) -> "Iterator[Future[renewal.Outcome]]":
        """Yield one call that is done, and those that follow it soon, for every worker one at the most."""
        ends = float("inf")
        for _worker in range(min(self.sweep.workers, len(self.in_flight))):
            left = None if ends == float("inf") else max(ends - time.monotonic(), 0)
            try:
                yield self.done.get(timeout=left)
            except Empty:
                return
            ends = min(ends, time.monotonic() + GATHER)

    def _settle(self, *args: Any) -> list[AIRiskToken]:
        return self._patiently(partial(AIRiskToken.objects.settle, *args))

    def _patiently(self, work: Callable[[], Result]) -> Result:
        """Do what the database is needed for; when it goes away, as in a restart, wait for it and do it again.

        Every statement of a sweep may be repeated. Inside a transaction, which is lost then, nothing is.
        """
        connection = connections[AIRiskToken.objects.primary().db]
        give_up = time.monotonic() + self.patience
        told = False
        while True:
            try:
                return work()
            except (OperationalError, InterfaceError) as error:
                if connection.in_atomic_block or time.monotonic() > give_up:
                    self.patience = 0
                    raise
                if not told:
                    message, alias = "The sweep waits for the database: %(why)s", self.deployment.alias
                    log(logger, logging.WARNING, "sweep.database_wait", message, why=error, deployment=alias)
                told = True
                connection.close()
                time.sleep(0.2)

    def _skip(self, reason: str, number: int = 1) -> None:
        self.report.skip(reason, number)
        for _ in range(number):
            self.progress(SKIPPED)


def _word_for(outcome: renewal.Outcome) -> str:
    if isinstance(outcome, AIRiskRefused | ConnectionRequired):
        return REFUSED
    return UNAVAILABLE if isinstance(outcome, AIRiskError) else RENEWED


def _fault_for_all(outcome: renewal.Outcome) -> str:
    """Return why no other token of the deployment will fare better, or an empty string."""
    if isinstance(outcome, AIRiskUnavailable):
        return LEFT_ALONE
    # AIRisk's word for a client or a secret that is wrong; of a user it says 400.
    return NOT_KNOWN if isinstance(outcome, AIRiskRefused) and outcome.status == 401 else ""
