"""One renewal at a time per token, across threads, processes and hosts.

Soon to end: one caller renews, all others go on with the token they have. Ended, or refused by AIRisk: one renews,
the others wait for it and use what it brought. A renewal is claimed by a lease on the token's row, which lapses by
itself when its holder dies; the HTTP calls run outside any transaction, wherever the database allows it.
"""

import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID, uuid4

from django.db import Error as DatabaseError
from django.db import connections, transaction
from django.utils import timezone

from . import flow
from .conf import Deployment
from .effects import Steps, apart, obtain, on_own_connection, pause, query, run
from .events import log
from .exceptions import AIRiskError, AIRiskRefused, AIRiskUnavailable, ConnectionRequired
from .models import SKEW, AIRiskToken
from .protocol import Secret, TokenGrant
from .sealing import Unreadable
from .signals import renewal_failed, token_obtained, token_renewed

logger = logging.getLogger("airisk_oauth.renewal")

#: How long a token that was read is used before its row is looked at again: a disconnect is noticed within this.
TRUST: Final = timedelta(seconds=60)
#: The same while a renewal is due, which somebody else may be at.
TRUST_WHILE_DUE: Final = timedelta(seconds=5)
#: After a failed renewal, callers in need get its error for this long without another call.
ECHO: Final = timedelta(seconds=5)
#: A lease lasts this many seconds longer than its HTTP calls can take.
LEASE_MARGIN: Final = 15.0
#: A call that AIRisk refuses whatever its token is not worth more than one renewal in this time.
HOPELESS: Final = timedelta(seconds=60)
USE_IS_NOTED_EVERY: Final = timedelta(hours=1)

Outcome = TokenGrant | AIRiskError


class Access(NamedTuple):
    """A token to call with, until when to use it without asking again, and whether asking for it brought it."""

    token: Secret
    good_until: datetime
    is_new: bool

    @property
    def header(self) -> Secret:
        """The value of ``Authorization``; the frames of a call hold its headers, and crash reports show frames."""
        return Secret(f"Bearer {self.token}")


class TokenKeeper:
    """Keeps one owner's token on one deployment fresh.

    :param user: the owner; ``None`` for the application.
    """

    def __init__(self, deployment: Deployment, user: Any = None) -> None:
        self.deployment = deployment
        self.user = user

    def access(self, refused: str | None = None) -> Access:
        """Return a token to call AIRisk with. For parameters and errors see :meth:`accessing`."""
        return run(self.accessing(refused))

    def accessing(self, refused: str | None = None) -> Steps[Access]:
        """Come to a token to call AIRisk with, renewed when that is due.

        :param refused: a token that AIRisk has just answered with 401; another one is returned, unless that was of no
            use a moment ago (:meth:`noting_refused_anew`).
        :raises ConnectionRequired: a person has to connect.
        :raises AIRiskError: the token has ended, or was refused, and could not be renewed.
        """
        token, serves = yield from query(self._look, refused)
        now = timezone.now()
        if not serves:
            token = yield from apart(self._renew_or_wait(refused), token.pk)
        elif self._is_due(token, now):
            token = yield from self._renew_early(token)
        secret = yield from query(self._take, token)
        return Access(secret, self._good_until(token), is_new=token.renewed_at >= now)

    def noting_refused_anew(self) -> Steps[None]:
        """Remember that AIRisk refused a call with a token that had just been renewed for it: that does not help."""
        yield from query(self._note, "refused_anew_at")

    def check(self) -> AIRiskToken:
        """Return the stored token, or raise ``ConnectionRequired`` where a call would, as far as the rows tell."""
        token = self._read()
        self._open(token)
        by_hand = not self.deployment.silent_renewal
        if token.needs_person and (by_hand or token.has_ended):
            raise self._as_seen_by_caller(token.failure())
        if token.has_ended:
            self._require_silent_renewal()
        return token

    def renew(self) -> bool:
        """Renew now, whatever its end; false where somebody else is at it. Errors: as :meth:`accessing`."""
        token = self._read()
        self._require_silent_renewal()
        return on_own_connection(lambda: run(self._claim_and_renew(token)), token.pk) is not None

    def _look(self, refused: str | None) -> tuple[AIRiskToken, bool]:
        """Return the stored token, and whether it is good for somebody to whom this one was refused."""
        token = self._read()
        now = timezone.now()
        if not token.sealed or token.is_ended(now):
            return token, False
        hopeless = token.refused_anew_at is not None and now - token.refused_anew_at < HOPELESS
        return token, refused is None or hopeless or self._open(token) != refused

    def _read(self) -> AIRiskToken:
        userid = self._userid()
        tokens = AIRiskToken.objects.primary()
        token: AIRiskToken | None = tokens.owned_by(self._user_id, self.deployment.alias).first()
        if token is None and self.user is None:
            # The application's first token: an empty row is there to be leased.
            token, _created = tokens.get_or_create(user=None, deployment=self.deployment.alias)
        if token is None:
            raise self._required("This user has not connected to AIRisk.")
        if token.userid != userid:
            raise self._required("This user is somebody else on AIRisk now than when they connected.")
        return token

    def _userid(self) -> str:
        if self.user is None:
            return ""
        userid = self.deployment.userid_of(self.user) if self.user.is_authenticated else None
        if userid is None:
            raise self._required("This user has no identity on AIRisk.")
        return userid

    def _open(self, token: AIRiskToken) -> Secret:
        try:
            return token.access_token
        except Unreadable as error:
            message = "AIRisk token %(token_id)s cannot be opened: %(why)s"
            log(logger, logging.WARNING, "token.unreadable", message, token=token, why=error)
            raise self._required("The stored token cannot be opened.") from None

    def _is_due(self, token: AIRiskToken, now: datetime) -> bool:
        renew_at = token.renew_at(self.deployment.renew_before)
        cooling = token.retry_at is not None and token.retry_at > now
        return self.deployment.silent_renewal and renew_at is not None and renew_at <= now and not cooling

    def _good_until(self, token: AIRiskToken) -> datetime:
        now = timezone.now()
        renew_at = token.renew_at(self.deployment.renew_before)
        if renew_at is None or token.expires_at is None:
            return now + TRUST
        if renew_at > now:
            return min(now + TRUST, renew_at)
        return min(now + TRUST_WHILE_DUE, token.expires_at - SKEW)

    def _renew_early(self, token: AIRiskToken) -> Steps[AIRiskToken]:
        """Renew a living token if nobody else is at it; inside a transaction, once that has committed."""
        postponed = yield from query(self._postpone, token)
        return token if postponed else (yield from self._try_to_renew(token))

    def _postpone(self, token: AIRiskToken) -> bool:
        connection = connections[AIRiskToken.objects.primary().db]
        if connection.in_atomic_block:
            transaction.on_commit(lambda: run(self._try_to_renew(token)), using=connection.alias)
        return connection.in_atomic_block

    def _try_to_renew(self, token: AIRiskToken) -> Steps[AIRiskToken]:
        try:
            renewed = yield from self._claim_and_renew(token)
        except (AIRiskError, DatabaseError) as error:
            message = "AIRisk token %(token_id)s lives on without its early renewal: %(why)s"
            log(logger, logging.WARNING, "token.early_renewal_failed", message, token=token, why=error)
            return token
        return renewed or (yield from query(self._read))

    def _renew_or_wait(self, refused: str | None) -> Steps[AIRiskToken]:
        """Renew the token, or wait for whoever is at it and return what that brought."""
        give_up = time.monotonic() + lease_seconds(self.deployment)
        delay = 0.05
        while time.monotonic() < give_up:
            token, serves = yield from query(self._look, refused)
            if serves:
                return token
            if not self.deployment.silent_renewal:
                yield from query(self._require_silent_renewal, token)
            now = timezone.now()
            if token.failed_at is not None and now - token.failed_at < ECHO:
                raise self._as_seen_by_caller(token.failure())
            if token.lease_until is None or token.lease_until < now:
                renewed = yield from self._claim_and_renew(token)
                if renewed is not None:
                    return renewed
            yield from pause(delay)
            delay = min(delay * 1.5, 0.25)
        raise AIRiskUnavailable("Another process is renewing this token and has not finished in time.")

    def _claim_and_renew(self, token: AIRiskToken) -> Steps[AIRiskToken | None]:
        """Come to the renewed token, or to ``None`` where somebody else is at it or was faster."""
        lease = uuid4()
        try:
            mine = yield from query(self._claim, token, lease)
            if mine is None:
                return None
            outcome = yield from self._obtain(mine)
            saved = yield from query(save_outcomes, [(mine, outcome)], lease)
        except GeneratorExit:
            # Nobody is left to give the lease back; it lapses by itself.
            raise
        except BaseException:
            yield from query(AIRiskToken.objects.settle, [token], lease)
            raise
        if isinstance(outcome, AIRiskError):
            raise self._as_seen_by_caller(outcome)
        return mine if saved else None

    def _claim(self, token: AIRiskToken, lease: UUID) -> AIRiskToken | None:
        row = AIRiskToken.objects.filter(pk=token.pk)
        for mine in row.claim(lease, now=timezone.now(), seconds=lease_seconds(self.deployment)):
            if (mine.sealed, mine.failed_at) == (token.sealed, token.failed_at):
                return mine
            AIRiskToken.objects.settle([mine], lease)
        return None

    def _obtain(self, token: AIRiskToken) -> Steps[Outcome]:
        if token.sealed:
            # A host with a wrong key must not replace what the others can still open.
            yield from query(self._open, token)
        try:
            return (yield from obtain(self.deployment, token.userid or None))
        except AIRiskError as error:
            # Returned, to be noted on the row before it is raised.
            return error

    def _take(self, token: AIRiskToken) -> Secret:
        """Open a token that is about to be used, and note once in a while that it is."""
        if timezone.now() - token.last_used_at >= USE_IS_NOTED_EVERY:
            self._note("last_used_at")
        return self._open(token)

    def _note(self, what: str) -> None:
        """Write the time of something to the token's row, when the caller's transaction has committed."""
        now = timezone.now()
        row = AIRiskToken.objects.primary().owned_by(self._user_id, self.deployment.alias)
        transaction.on_commit(lambda: row.update(**{what: now}), using=row.db, robust=True)

    @property
    def _user_id(self) -> Any:
        return None if self.user is None else self.user.pk

    def _require_silent_renewal(self, useless: AIRiskToken | None = None) -> None:
        if self.deployment.silent_renewal:
            return
        required = self._required("The stored token has ended or was refused, and is not renewed silently.")
        if useless is not None and not useless.needs_person:
            # On the row, because a token that AIRisk refused may look as if it lived.
            useless.fail(required, timezone.now())
            values = {name: getattr(useless, name) for name in AIRiskToken.FAILED}
            AIRiskToken.objects.primary().filter(pk=useless.pk, sealed=useless.sealed).update(**values)
        raise required

    def _required(self, message: str) -> ConnectionRequired:
        alias = self.deployment.alias
        url = None if self.user is None else flow.page_url("connect", alias)
        return ConnectionRequired(message, deployment=alias, connect_url=url)

    def _as_seen_by_caller(self, error: AIRiskError) -> AIRiskError:
        """Only a person can mend a refusal, by connecting again; the application has no such person."""
        if isinstance(error, ConnectionRequired) or (isinstance(error, AIRiskRefused) and self.user is not None):
            required = self._required(f"The stored token could not be renewed. {error}")
            required.__cause__ = error
            return required
        return error


def lease_seconds(deployment: Deployment) -> float:
    """Return for how many seconds the renewal of a token is held against others."""
    return sum(deployment.timeout) + LEASE_MARGIN


def save_outcomes(
    outcomes: list[tuple[AIRiskToken, Outcome]],
    lease: UUID,
    settle: Callable[..., list[AIRiskToken]] = AIRiskToken.objects.settle,
) -> list[AIRiskToken]:
    """Save what renewals brought to those rows whose lease is still held, and return these.

    A row that lost its lease holds something newer, or is gone: what came for it is dropped.
    """
    now = timezone.now()
    first = {token.pk for token, _outcome in outcomes if not token.sealed}
    errors = {token.pk: outcome for token, outcome in outcomes if isinstance(outcome, AIRiskError)}
    renewed, failed = [], []
    for token, outcome in outcomes:
        if isinstance(outcome, AIRiskError):
            token.fail(outcome, now)
            failed.append(token)
        else:
            token.renew(outcome, now)
            renewed.append(token)
    saved = settle(renewed, lease, AIRiskToken.RENEWED + AIRiskToken.FAILED)
    for token in saved:
        signal = token_obtained if token.pk in first else token_renewed
        message = "AIRisk token %(token_id)s of deployment %(deployment)s was renewed"
        log(logger, logging.INFO, "token.obtained" if token.pk in first else "token.renewed", message, token=token)
        signal.send_robust(AIRiskToken, user_id=token.user_id, deployment=token.deployment)
    missed = settle(failed, lease, AIRiskToken.FAILED)
    for token in missed:
        error = errors[token.pk]
        message = "AIRisk token %(token_id)s of deployment %(deployment)s was not renewed: %(why)s"
        log(logger, logging.WARNING, "token.renewal_failed", message, token=token, why=error)
        renewal_failed.send_robust(AIRiskToken, user_id=token.user_id, deployment=token.deployment, error=error)
    return [*saved, *missed]
