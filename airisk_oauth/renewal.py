"""One renewal at a time per token, across threads, processes and hosts.

Soon to end: one caller renews, all others go on with the token they have. Ended, or refused by AIRisk: one renews,
the others wait for it and use what it brought. A renewal is claimed by a lease on the token's row, which lapses by
itself when its holder dies; the HTTP calls run outside any transaction, wherever the database allows it.
"""

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, TypeVar
from uuid import UUID, uuid4

from django.db import Error as DatabaseError
from django.db import connections, transaction
from django.utils import timezone

from . import flow
from .conf import Deployment
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
Result = TypeVar("Result")


class Access(NamedTuple):
    """A token to call with, until when to use it without asking again, and whether asking for it brought it."""

    token: Secret
    good_until: datetime
    is_new: bool


class TokenKeeper:
    """Keeps one owner's token on one deployment fresh.

    :param user: the owner; ``None`` for the application.
    """

    def __init__(self, deployment: Deployment, user: Any = None) -> None:
        self.deployment = deployment
        self.user = user

    def access(self, refused: str | None = None) -> Access:
        """Return a token to call AIRisk with, renewed when that is due.

        :param refused: a token that AIRisk has just answered with 401; another one is returned, unless that was of no
            use a moment ago (:meth:`note_refused_anew`).
        :raises ConnectionRequired: a person has to connect.
        :raises AIRiskError: the token has ended, or was refused, and could not be renewed.
        """
        token = self._read()
        now = timezone.now()
        if refused is not None and token.refused_anew_at is not None and now - token.refused_anew_at < HOPELESS:
            refused = None
        if not self._serves(token, refused, now):
            token = on_own_connection(lambda: self._renew_or_wait(refused), token.pk)
        elif self._is_due(token, now):
            token = self._renew_early(token)
        self._note_use(token)
        return Access(self._open(token), self._good_until(token), is_new=token.renewed_at >= now)

    def note_refused_anew(self) -> None:
        """Remember that AIRisk refused a call with a token that had just been renewed for it: that does not help."""
        now = timezone.now()
        user_id = None if self.user is None else self.user.pk
        row = AIRiskToken.objects.primary().owned_by(user_id, self.deployment.alias)
        transaction.on_commit(lambda: row.update(refused_anew_at=now), using=row.db, robust=True)

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
        """Renew now, whatever its end; false where somebody else is at it. Errors: as :meth:`access`."""
        token = self._read()
        self._require_silent_renewal()
        return on_own_connection(lambda: self._claim_and_renew(token), token.pk) is not None

    def _read(self) -> AIRiskToken:
        userid = self._userid()
        tokens = AIRiskToken.objects.primary()
        user_id = None if self.user is None else self.user.pk
        token: AIRiskToken | None = tokens.owned_by(user_id, self.deployment.alias).first()
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
            logger.warning("AIRisk token %s cannot be opened: %s", token.pk, error)
            raise self._required("The stored token cannot be opened.") from None

    def _serves(self, token: AIRiskToken, refused: str | None, now: datetime) -> bool:
        if not token.sealed or token.is_ended(now):
            return False
        return refused is None or self._open(token) != refused

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

    def _renew_early(self, token: AIRiskToken) -> AIRiskToken:
        """Renew a living token if nobody else is at it; inside a transaction, once that has committed."""
        connection = connections[AIRiskToken.objects.primary().db]
        if not connection.in_atomic_block:
            return self._try_to_renew(token)
        transaction.on_commit(lambda: self._try_to_renew(token), using=connection.alias)
        return token

    def _try_to_renew(self, token: AIRiskToken) -> AIRiskToken:
        try:
            renewed = self._claim_and_renew(token)
        except (AIRiskError, DatabaseError) as error:
            logger.warning("AIRisk token %s lives on without its early renewal: %s", token.pk, error)
            return token
        return renewed or self._read()

    def _renew_or_wait(self, refused: str | None) -> AIRiskToken:
        """Renew the token, or wait for whoever is at it and return what that brought."""
        give_up = time.monotonic() + lease_seconds(self.deployment)
        pause = 0.05
        while time.monotonic() < give_up:
            token = self._read()
            now = timezone.now()
            if self._serves(token, refused, now):
                return token
            self._require_silent_renewal(token)
            if token.failed_at is not None and now - token.failed_at < ECHO:
                raise self._as_seen_by_caller(token.failure())
            if token.lease_until is None or token.lease_until < now:
                renewed = self._claim_and_renew(token)
                if renewed is not None:
                    return renewed
            time.sleep(pause)
            pause = min(pause * 1.5, 0.25)
        raise AIRiskUnavailable("Another process is renewing this token and has not finished in time.")

    def _claim_and_renew(self, token: AIRiskToken) -> AIRiskToken | None:
        """Return the renewed token, or ``None`` where somebody else is at it or was faster."""
        lease = uuid4()
        row = AIRiskToken.objects.filter(pk=token.pk)
        claimed = row.claim(lease, now=timezone.now(), seconds=lease_seconds(self.deployment))
        for mine in claimed:
            if (mine.sealed, mine.failed_at) == (token.sealed, token.failed_at):
                return self._renew_claimed(mine, lease)
            AIRiskToken.objects.settle([mine], lease)
        return None

    def _renew_claimed(self, token: AIRiskToken, lease: UUID) -> AIRiskToken | None:
        from .transport import OAuthClient

        try:
            if token.sealed:
                # A host with a wrong key must not replace what the others can still open.
                self._open(token)
            with OAuthClient(self.deployment) as client:
                outcome = renewal_outcome(self.deployment, token, client)
        except BaseException:
            AIRiskToken.objects.settle([token], lease)
            raise
        saved = save_outcomes([(token, outcome)], lease)
        if isinstance(outcome, AIRiskError):
            raise self._as_seen_by_caller(outcome)
        return token if saved else None

    def _note_use(self, token: AIRiskToken) -> None:
        now = timezone.now()
        if now - token.last_used_at < USE_IS_NOTED_EVERY:
            return
        row = AIRiskToken.objects.primary().filter(pk=token.pk)
        transaction.on_commit(lambda: row.update(last_used_at=now), using=row.db, robust=True)

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


def on_own_connection(renew: Callable[[], Result], pk: Any) -> Result:
    """Run a renewal that cannot wait so that it commits, whatever becomes of the caller's transaction.

    Where another connection cannot see the row ``pk`` (a ``TestCase``; SQLite while the caller writes), it runs on the
    caller's. Outside a transaction it just runs.
    """
    connection = connections[AIRiskToken.objects.primary().db]
    if not connection.in_atomic_block or connection.vendor == "sqlite":
        return renew()

    def in_thread() -> tuple[Result] | None:
        try:
            visible = AIRiskToken.objects.primary().filter(pk=pk).exists()
            return (renew(),) if visible else None
        finally:
            connections.close_all()

    with ThreadPoolExecutor(max_workers=1) as thread:
        done = thread.submit(in_thread).result()
    return renew() if done is None else done[0]


def lease_seconds(deployment: Deployment) -> float:
    """Return for how many seconds the renewal of a token is held against others."""
    return sum(deployment.timeout) + LEASE_MARGIN


def renewal_outcome(deployment: Deployment, token: AIRiskToken, client: Any) -> Outcome:
    """Do the HTTP part of one renewal. An error is returned, to be noted on the row before it is raised."""
    try:
        return flow.obtain_silently(deployment, token.userid or None, client)
    except AIRiskError as error:
        return error


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
        logger.info("AIRisk token %s of deployment %s was renewed", token.pk, token.deployment)
        signal.send_robust(AIRiskToken, user_id=token.user_id, deployment=token.deployment)
    missed = settle(failed, lease, AIRiskToken.FAILED)
    for token in missed:
        error = errors[token.pk]
        logger.warning("AIRisk token %s of deployment %s was not renewed: %s", token.pk, token.deployment, error)
        renewal_failed.send_robust(AIRiskToken, user_id=token.user_id, deployment=token.deployment, error=error)
    return [*saved, *missed]
