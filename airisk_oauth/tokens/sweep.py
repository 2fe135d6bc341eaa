"""Renew many tokens: those of a deployment that have ended or soon will, earliest first.

A pool of workers does HTTP only; the database stays in the calling thread, which claims rows a page at a time and
saves what came back in batches. Several hosts may sweep at once: a row that one has claimed the others pass over.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import uuid4

from django.utils import timezone

from ..database.patience import Patience
from ..events import log
from ..exceptions import AIRiskError, AIRiskRefused, AIRiskUnavailable, ConnectionRequired
from ..models import AIRiskToken, AIRiskTokenQuerySet
from ..oauth.code_flow import obtain_silently
from ..oauth.messages import TokenGrant
from . import losses, selection
from .leases import claim, lease_seconds, save_and_release
from .outcomes import Outcome, save_outcomes
from .report import (
    AIRISK_DOWN,
    CLIENT_REJECTED,
    DEACTIVATED,
    FOR_A_PERSON,
    INTERRUPTED,
    LEASED_ELSEWHERE,
    PERSON_ASKED_FOR,
    REFUSED,
    RENEWED,
    RENEWED_ELSEWHERE,
    SKIPPED,
    UNAVAILABLE,
    USER_REFUSED,
    Report,
    Trouble,
)
from .selection import Judge, Line, Selection

if TYPE_CHECKING:
    from ..oauth.transport import OAuthClient

logger = logging.getLogger("airisk_oauth.sweep")

Result = TypeVar("Result")

#: After so many tokens in a row for which AIRisk was not available, the rest of the deployment is left alone; after so
#: many that it refused by 401, the sweep finds out whether it is the site that AIRisk refuses.
GIVE_UP_AFTER: Final = 5
#: From so many tokens at the far end of the queue the sweep finds that out where nothing else tells.
SAMPLE: Final = 25
#: For how long results are gathered before they are saved together, in seconds.
GATHER: Final = 0.1
#: How many tokens are claimed at a time, and from how many under way on, as multiples of the workers: enough that they
#: have work while the database is at its own, and few enough that no lease lapses in the queue.
PAGE: Final = 2
RESERVE: Final = 3
#: For how many seconds a database that went away is waited for, so that a restart costs no token.
PATIENCE: Final = 30.0
#: After how many seconds the sweep looks again whether what waits in its queue is still its own.
LOOK_AGAIN: Final = 5.0

#: What AIRisk answers to a client or a secret that is wrong, and it may be to a user whom it does not know.
_UNAUTHORIZED: Final = 401


@dataclass
class Sweep(Selection):
    """Renews the tokens of a selection.

    :ivar workers: so many HTTP requests at a time.
    :ivar stop: set it, from a signal handler say, and what is in flight is finished, nothing more begun.
    """

    workers: int = 8
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self, progress: Callable[[str], object] = lambda _what: None) -> Report:
        """Renew them.

        :param progress: called for each token with what became of it, one of :data:`~airisk_oauth.report.COUNTED`.
        """
        return _Run(self, progress).run()


class _Run:
    def __init__(self, sweep: Sweep, progress: Callable[[str], object]) -> None:
        self.sweep = sweep
        self.deployment = sweep.deployment
        self.progress = progress
        self.report = Report()
        self.lease = uuid4()
        # A lease outlasts the flows that are before it in the queue.
        self.lease_seconds = (RESERVE + PAGE - 1) * self.deployment.timeout[1] + lease_seconds(self.deployment)
        self.patiently = Patience(AIRiskToken.objects.primary().db, PATIENCE, self._say_that_it_waits)
        self.judge = Judge(self.deployment)
        self.lines = sweep.lines()
        self.left = 0
        self.looked_at = time.monotonic()
        self.given_up = ""
        # Whether AIRisk has given this site a token since the sweep began.
        self.is_accepted = False
        # In a row: for which AIRisk was not available; refused by 401 for the first time; refused once more.
        self.unavailable = self.unauthorized = self.refused_again = 0
        self.tolerance = GIVE_UP_AFTER
        self.samples = self.exhausted = self.drops_rest = False
        self.suspicion: AIRiskError | None = None
        self.no_samples: set[Any] = set()
        self.to_tell: list[tuple[AIRiskToken, Outcome]] = []
        self.in_flight: dict[Future[Outcome], AIRiskToken] = {}
        self.done: SimpleQueue[Future[Outcome]] = SimpleQueue()
        self.of_thread = threading.local()
        self.clients = ExitStack()

    def run(self) -> Report:
        expected = self.left = self.sweep.total()
        with self.clients, ThreadPoolExecutor(self.sweep.workers) as pool:
            try:
                if self.patiently(self.sweep.is_client_doubtful):
                    self._suspect_client()
                self._work(pool)
                if self.unauthorized and not self.report.counts[RENEWED] and not self._is_over:
                    self._suspect_client_last()
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
        if self.suspicion is not None and not self.given_up:
            self._give_up_on_client()
        self._tell()
        self._announce_losses()
        left = 0 if self.drops_rest else expected - self.report.counts.total()
        self._skip(INTERRUPTED if self.sweep.stop.is_set() else self.given_up or LEASED_ELSEWHERE, left)
        self._skip(DEACTIVATED, self.sweep.deactivated())
        return self.report

    def _work(self, pool: ThreadPoolExecutor) -> None:
        self._fill(pool)
        while self.in_flight:
            self._save()
            self._leave_what_was_taken_over()
            if self._is_over:
                self._withdraw()
            self._fill(pool)

    def _fill(self, pool: ThreadPoolExecutor) -> None:
        while not self.exhausted and len(self.in_flight) <= RESERVE * self.sweep.workers:
            page = self._next_page()
            self.exhausted = not page
            for token in self._wanted(page) if page else ():
                future = pool.submit(self._renew, token)
                self.in_flight[future] = token
                future.add_done_callback(self.done.put)

    @property
    def _is_over(self) -> bool:
        return bool(self.given_up) or self.sweep.stop.is_set()

    # From the database to the workers

    def _next_page(self) -> list[AIRiskToken]:
        while self.left > 0 and not self._is_over:
            if len(self.lines) == 1 and not self._is_last_line_worth_it:
                self.drops_rest = not self.suspicion
                return []
            page = self.patiently(partial(self.lines[0].take, self._claim, from_far_end=self.samples))
            if page:
                self.left -= len(page)
                return page
            if len(self.lines) == 1:
                return []
            del self.lines[0]
        return []

    @property
    def _is_last_line_worth_it(self) -> bool:
        """Whether to try those again that needed a person the last time."""
        return not self.samples and (self.refused_again < SAMPLE or self.sweep.within is None)

    def _claim(self, tokens: AIRiskTokenQuerySet) -> list[AIRiskToken]:
        limit = min(PAGE * self.sweep.workers, self.left)
        return claim(tokens, self.lease, now=timezone.now(), seconds=self.lease_seconds, limit=limit)

    def _wanted(self, page: list[AIRiskToken]) -> list[AIRiskToken]:
        """Give those back that must not be renewed, and return the others."""
        try:
            reasons = self.patiently(partial(self.judge.reasons_against, page))
        except BaseException:
            self._settle(page, self.lease)
            raise
        unwanted = [token for token in page if reasons[token.pk]]
        new = [token for token in unwanted if reasons[token.pk] in FOR_A_PERSON and not selection.is_known(token)]
        self._settle([token for token in unwanted if token not in new], self.lease)
        for token in new:
            selection.note(token, timezone.now())
        for token in self._settle(new, self.lease, selection.NOTED):
            self._name(token, reasons[token.pk] or "")
        for token in unwanted:
            self._skip(reasons[token.pk] or "")
        return [token for token in page if not reasons[token.pk]]

    def _renew(self, token: AIRiskToken) -> Outcome:
        return self._ask_for_token(token.requested_userid)

    def _ask_for_token(self, userid: str | None) -> Outcome:
        try:
            return self._client().run(obtain_silently, self.deployment, userid)
        except AIRiskError as error:
            return error

    def _client(self) -> "OAuthClient":
        """Return this thread's own client: a connection is used by one thread."""
        from ..oauth.transport import OAuthClient

        if not hasattr(self.of_thread, "client"):
            self.of_thread.client = self.clients.enter_context(OAuthClient(self.deployment))
        client: OAuthClient = self.of_thread.client
        return client

    def _withdraw(self) -> list[AIRiskToken]:
        """Give back, and return, what no worker has begun with."""
        queued = [self.in_flight.pop(future) for future in list(self.in_flight) if future.cancel()]
        self._settle(queued, self.lease)
        return queued

    def _leave_what_was_taken_over(self) -> None:
        """Drop what waits in the queue and was claimed by a caller in need; of interest only where AIRisk is slow."""
        if time.monotonic() - self.looked_at < LOOK_AGAIN:
            return
        self.looked_at = time.monotonic()
        tokens = AIRiskToken.objects.primary().filter(pk__in=[token.pk for token in self.in_flight.values()])
        ours = self.patiently(lambda: set(tokens.filter(lease=self.lease).values_list("pk", flat=True)))
        for future, token in list(self.in_flight.items()):
            if token.pk not in ours and future.cancel():
                del self.in_flight[future]
                self._skip(RENEWED_ELSEWHERE)

    # From the workers to the database

    def _save(self) -> None:
        """Save what has come back, gathered for a moment so that one write serves several tokens."""
        # One that was withdrawn is done, too.
        came = [(self.in_flight.pop(future), future) for future in [*self._gather()] if future in self.in_flight]
        outcomes = [(token, future.result()) for token, future in came if future.exception() is None]
        known = {token.pk for token, _outcome in outcomes if selection.is_known(token)}
        saved = {token.pk for token in save_outcomes(outcomes, self.lease, self._settle)}
        for token, outcome in outcomes:
            if token.pk not in saved:
                self._skip(RENEWED_ELSEWHERE)
                continue
            self._count(token, outcome, is_known=token.pk in known)
        self._settle([token for token, future in came if future.exception()], self.lease)
        for _token, future in came:
            future.result()
        if self.unauthorized >= self.tolerance and not self._is_over:
            self._suspect_client()

    def _gather(self) -> "Iterator[Future[Outcome]]":
        """Yield one call that is done, and those that follow it soon, up to a page of them."""
        ends = float("inf")
        for _result in range(min(PAGE * self.sweep.workers, len(self.in_flight))):
            left = None if ends == float("inf") else max(ends - time.monotonic(), 0)
            try:
                yield self.done.get(timeout=left)
            except Empty:
                return
            ends = min(ends, time.monotonic() + GATHER)

    def _settle(self, tokens: list[AIRiskToken], *args: Any) -> list[AIRiskToken]:
        return self.patiently(partial(save_and_release, tokens, *args))

    def _count(self, token: AIRiskToken, outcome: Outcome, *, is_known: bool) -> None:
        what = _word_for(outcome)
        self.report.counts[what] += 1
        self.progress(what)
        if what == REFUSED and not is_known:
            self.to_tell.append((token, outcome))
        self.unavailable = self.unavailable + 1 if isinstance(outcome, AIRiskUnavailable) else 0
        if self.unavailable >= GIVE_UP_AFTER:
            self.given_up = self.given_up or AIRISK_DOWN
        if what == RENEWED:
            self.is_accepted = True
            self.unauthorized, self.refused_again = 0, 0
            self.samples, self.suspicion = False, None
            self._tell()
        elif is_known:
            self.refused_again += what == REFUSED
        elif _is_unauthorized(outcome) and token.pk not in self.no_samples:
            self.unauthorized += 1

    def _tell(self) -> None:
        """Name those who need a person; not for a 401 where it is the site that AIRisk refuses."""
        told, self.to_tell = self.to_tell, []
        for token, outcome in told:
            if not (self.report.client_refused and not self.report.counts[RENEWED] and _is_unauthorized(outcome)):
                self._name(token, USER_REFUSED if isinstance(outcome, AIRiskRefused) else PERSON_ASKED_FOR)

    def _announce_losses(self) -> None:
        is_accepted = self.is_accepted and not self.report.client_refused
        self.patiently(partial(losses.announce_held_back, self.deployment, is_accepted=is_accepted))

    def _name(self, token: AIRiskToken, reason: str) -> None:
        trouble = Trouble(token.pk, token.user_id, token.deployment, reason)
        self.report.needs_person.append(trouble)
        message = "A person is needed: token %(token_id)s of user %(user_id)s on %(deployment)s: %(reason)s"
        log(logger, logging.WARNING, "sweep.needs_person", message, token=token, reason=reason)

    def _skip(self, reason: str, number: int = 1) -> None:
        self.report.skip(reason, number)
        for _ in range(number):
            self.progress(SKIPPED)

    # Whom AIRisk refuses

    def _suspect_client(self) -> None:
        """Find out whether AIRisk refuses the site, and not some of its users; give up where there is no doubt.

        The application's token belongs to no user. It is not kept: to know that AIRisk grants it is all.
        """
        if self.samples:
            self._give_up_on_client()
            return
        queued = self._withdraw()
        answer = self._ask_for_application()
        if isinstance(answer, TokenGrant):
            # Asked less often the more users are refused, so that it costs next to nothing.
            self.unauthorized, self.tolerance = 0, 2 * self.tolerance
        elif _is_unauthorized(answer):
            # It may be that this client gets tokens of users only.
            self.suspicion = answer
            self._take_samples(GIVE_UP_AFTER)
        elif self.unauthorized >= self.tolerance:
            self._take_samples(SAMPLE)
        self._take_later(queued)

    def _suspect_client_last(self) -> None:
        """At the end of a run in which AIRisk refused some and granted none: a few say no more than the application."""
        answer = self._ask_for_application()
        if isinstance(answer, AIRiskRefused) and _is_unauthorized(answer):
            self.suspicion = answer

    def _ask_for_application(self) -> Outcome:
        answer = self._ask_for_token(None)
        self.is_accepted = self.is_accepted or isinstance(answer, TokenGrant)
        return answer

    def _take_samples(self, number: int) -> None:
        """Go on at the far end of the queue, where the users are others."""
        # What was begun before is none.
        self.no_samples = {token.pk for token in self.in_flight.values()}
        self.samples, self.tolerance = True, self.unauthorized + number

    def _take_later(self, tokens: list[AIRiskToken]) -> None:
        """Put these, which were claimed and given back, before those that needed a person the last time."""
        pks = [token.pk for token in tokens]
        self.left += len(pks)
        self.exhausted = False
        self.lines.insert(-1, Line(lambda: self.sweep.candidates().filter(pk__in=pks), ("pk",)))

    def _give_up_on_client(self) -> None:
        self.given_up, self.report.client_refused = CLIENT_REJECTED, True
        message = "AIRisk does not accept this site for deployment %(deployment)s"
        alias = self.deployment.alias
        log(logger, logging.WARNING, "sweep.client_refused", message, why=self.suspicion, deployment=alias)

    def _say_that_it_waits(self, error: Exception) -> None:
        message, alias = "The sweep waits for the database: %(why)s", self.deployment.alias
        log(logger, logging.WARNING, "sweep.database_wait", message, why=error, deployment=alias)


def _word_for(outcome: Outcome) -> str:
    if isinstance(outcome, AIRiskRefused | ConnectionRequired):
        return REFUSED
    return UNAVAILABLE if isinstance(outcome, AIRiskError) else RENEWED


def _is_unauthorized(outcome: Outcome) -> bool:
    return isinstance(outcome, AIRiskRefused) and outcome.status == _UNAUTHORIZED
