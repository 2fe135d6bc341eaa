"""One renewal at a time per token, across threads, processes and hosts.

Soon to end: one caller renews, all others go on with the token they have. Ended, or refused by AIRisk: one renews,
the others wait for it and use what it brought. A renewal is claimed by a lease on the token's row, which lapses by
itself when its holder dies.

Inside a caller's transaction nothing is claimed, written or waited for: what it brings is used at once, and written
afterwards; see :mod:`airisk_oauth.unwritten`.
"""

import logging
import time
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID, uuid4

from django.db import Error as DatabaseError
from django.utils import timezone

from .. import conf
from ..database.expiry import SKEW, is_recent
from ..database.transactions import after_commit, in_transaction, reconnecting, retrying
from ..events import log
from ..exceptions import AIRiskError, AIRiskRefused, ConnectionRequired
from ..models import AIRiskToken
from ..oauth.deployment import Deployment
from ..oauth.messages import Secret
from ..sealing import Unreadable
from ..userids import userid_of
from . import unwritten
from .effects import Steps, obtain, one_at_a_time, pause, query, run
from .leases import claim, lease_seconds, save_and_release
from .outcomes import Outcome, announce, apply

logger = logging.getLogger("airisk_oauth.renewal")

#: How long a token that was read is used before its row is looked at again: a disconnect is noticed within this.
RECHECK_AFTER: Final = timedelta(seconds=60)
#: The same while a renewal is due, which somebody else may be at.
RECHECK_AFTER_WHILE_DUE: Final = timedelta(seconds=5)
#: After a failed renewal, callers in need get its error for this long without another call.
REPEAT_ERROR_FOR: Final = timedelta(seconds=5)
#: A call that AIRisk refuses whatever its token is not worth more than one renewal in this time.
REJECTED_NEW_TOKEN_PAUSE: Final = timedelta(seconds=60)
USE_IS_NOTED_EVERY: Final = timedelta(hours=1)


class _Application:
    """The owner of the tokens that are no user's. Never ``None``: a user who is missing must not become this."""

    def __repr__(self) -> str:
        return "the application"


APPLICATION: Final = _Application()


class Credential(NamedTuple):
    """A token to call with, until when to use it without asking again, and whether asking for it brought it."""

    token: Secret
    good_until: datetime
    is_new: bool

    @property
    def header(self) -> Secret:
        """The value of ``Authorization``; the frames of a call hold its headers, and crash reports show frames."""
        return Secret(f"Bearer {self.token}")


class _Found(NamedTuple):
    """A stored token, whether it serves its caller, and whether that caller is inside a transaction."""

    token: AIRiskToken
    serves: bool
    is_bound: bool


class TokenKeeper:
    """Keeps one owner's token on one deployment fresh.

    :param owner: a user, or :data:`APPLICATION`.
    """

    def __init__(self, deployment: Deployment, owner: Any) -> None:
        self.deployment = deployment
        self.owner = owner

    def access(self, refused: str | None = None) -> Credential:
        """Return a token to call AIRisk with. For parameters and errors see :meth:`accessing`."""
        return run(self.accessing(refused))

    def accessing(self, refused: str | None = None) -> Steps[Credential]:
        """Come to a token to call AIRisk with, renewed when that is due.

        :param refused: a token that AIRisk has just answered with 401; another one is returned, unless that was of no
            use a moment ago (:meth:`noting_refused_anew`).
        :raises ConnectionRequired: a person has to connect.
        :raises AIRiskError: the token has ended, or was refused, and could not be renewed.
        """
        token, serves, is_bound = yield from query(self._look, refused)
        before = token.sealed
        if not serves:
            renew = self._renew_unwritten if is_bound else self._renew_or_wait
            token = yield from renew(refused)
        elif self._is_due(token, timezone.now()):
            token = yield from self._renew_early(token)
        secret = yield from query(self._take, token)
        return Credential(secret, self._good_until(token), is_new=token.sealed != before)

    def noting_refused_anew(self) -> Steps[None]:
        """Remember that AIRisk refused a call with a token that had just been renewed for it: that does not help."""
        yield from query(self._note_refused_anew)

    def check(self) -> AIRiskToken:
        """Return the stored token, or raise ``ConnectionRequired`` where a call would, as far as the rows tell."""
        token = self._read()
        self._open(token)
        by_hand = not self.deployment.silent_renewal
        if token.needs_person and (by_hand or token.is_expired):
            raise self._as_seen_by_caller(token.last_error())
        if token.is_expired:
            self._require_silent_renewal()
        return token

    def renew(self) -> bool:
        """Renew now, whatever its end; false where somebody else is at it. Errors: as :meth:`accessing`."""
        token = self._read()
        self._require_silent_renewal()
        return run(self._claim_and_renew(token)) is not None

    def _look(self, refused: str | None) -> _Found:
        """Return the stored token, and whether it is good for somebody to whom this one was refused."""
        token = reconnecting(_database(), self._read)
        return _Found(token, self._serves(token, refused), in_transaction(_database()))

    def _serves(self, token: AIRiskToken, refused: str | None) -> bool:
        now = timezone.now()
        if not token.sealed or token.is_expired_at(now) or not token.is_from(self.deployment):
            return False
        return (
            refused is None
            or is_recent(token.refused_anew_at, now, REJECTED_NEW_TOKEN_PAUSE)
            or self._open(token) != refused
        )

    def _read(self) -> AIRiskToken:
        if self.owner is APPLICATION:
            return self._apply_unwritten(self._read_application())
        userid, using = self._userid(), _database()
        token = AIRiskToken.objects.using(using).owned_by(self.owner.pk, self.deployment.alias).first()
        if token is None:
            raise self._required("This user has not connected to AIRisk.")
        if token.userid != userid:
            raise self._required("This user is somebody else on AIRisk now than when they connected.")
        if not token.is_from(self.deployment):
            raise self._required("This user connected to another address of AIRisk than BASE_URL's.")
        return self._apply_unwritten(token)

    def _read_application(self) -> AIRiskToken:
        """Return the application's row; before its first token an empty one, which is there to be leased."""
        alias, rows = self.deployment.alias, AIRiskToken.objects.primary()
        token: AIRiskToken | None = rows.of_application(alias).first()
        if token is None and not in_transaction(rows.db):
            token, _created = retrying(rows.db, lambda: rows.get_or_create(user=None, deployment=alias))
        return token or AIRiskToken(deployment=alias)

    def _apply_unwritten(self, token: AIRiskToken) -> AIRiskToken:
        return unwritten.applied(token, self.deployment, _database())

    def _userid(self) -> str:
        # A framework may leave no user at all on a request, and one that was not saved has no key.
        is_somebody = getattr(self.owner, "is_authenticated", False) and self.owner.pk is not None
        userid = userid_of(self.deployment, self.owner) if is_somebody else None
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
        return self.deployment.silent_renewal and renew_at is not None and renew_at <= now and not token.is_paused(now)

    def _good_until(self, token: AIRiskToken) -> datetime:
        now = timezone.now()
        renew_at = token.renew_at(self.deployment.renew_before)
        if renew_at is None or token.expires_at is None:
            return now + RECHECK_AFTER
        if renew_at > now:
            return min(now + RECHECK_AFTER, renew_at)
        return min(now + RECHECK_AFTER_WHILE_DUE, token.expires_at - token.skew)

    def _renew_early(self, token: AIRiskToken) -> Steps[AIRiskToken]:
        """Renew a living token if nobody else is at it; inside a transaction, once that has committed."""
        postponed = yield from query(self._postpone, token)
        return token if postponed else (yield from self._try_to_renew(token))

    def _postpone(self, token: AIRiskToken) -> bool:
        using = _database()
        return after_commit(using, lambda: run(self._try_to_renew(token))) or in_transaction(using)

    def _try_to_renew(self, token: AIRiskToken) -> Steps[AIRiskToken]:
        try:
            renewed = yield from self._claim_and_renew(token)
            return renewed or (yield from query(self._read))
        except (AIRiskError, DatabaseError) as error:
            message = "AIRisk token %(token_id)s lives on without its early renewal: %(why)s"
            log(logger, logging.WARNING, "token.early_renewal_failed", message, token=token, why=error)
            return token

    def _renew_unwritten(self, refused: str | None) -> Steps[AIRiskToken]:
        """Renew without a claim, for a caller who cannot write, or whose transaction may be rolled back."""
        token = yield from query(self._read)
        key = unwritten.key_of(token, self.deployment, _database())
        return (yield from one_at_a_time(self._obtain_unwritten(refused), key, self.deployment.timeout[1]))

    def _obtain_unwritten(self, refused: str | None) -> Steps[AIRiskToken]:
        token, serves, _is_bound = yield from query(self._look, refused)
        if serves:
            return token
        yield from query(self._raise_what_is_known, token)
        before = unwritten.key_of(token, self.deployment, _database())
        outcome = yield from self._obtain(token)
        is_first = not token.sealed
        values = apply(token, outcome, timezone.now())
        yield from query(self._keep, before, token, values, outcome, is_first=is_first)
        if isinstance(outcome, AIRiskError):
            raise self._as_seen_by_caller(outcome)
        return token

    def _keep(
        self, before: unwritten.Key, token: AIRiskToken, values: dict[str, Any], outcome: Outcome, *, is_first: bool
    ) -> None:
        unwritten.keep(before, token, values, _database(), lambda row: announce(row, outcome, is_first=is_first))
        unwritten.write()

    def _renew_or_wait(self, refused: str | None) -> Steps[AIRiskToken]:
        """Renew the token, or wait for whoever is at it and return what that brought.

        Nobody is waited for longer than a flow may take: AIRisk gives a token to whoever asks.
        """
        give_up, delay = time.monotonic() + self.deployment.timeout[1], 0.05
        while time.monotonic() < give_up:
            token, serves, _is_bound = yield from query(self._look, refused)
            if serves:
                return token
            yield from query(self._raise_what_is_known, token)
            try:
                renewed = (yield from self._claim_and_renew(token)) if self._is_free(token) else None
            except DatabaseError as error:
                yield from query(unwritten.log_not_written, token, error)
                break
            if renewed is not None:
                return renewed
            yield from pause(delay)
            delay = min(delay * 1.5, 0.25)
        return (yield from self._renew_unwritten(refused))

    def _is_free(self, token: AIRiskToken) -> bool:
        """Tell whether a claim has a chance; see there of leases that are too long."""
        left = timedelta(0) if token.lease_until is None else token.lease_until - timezone.now()
        return not timedelta(0) < left <= timedelta(seconds=lease_seconds(self.deployment)) + SKEW

    def _raise_what_is_known(self, token: AIRiskToken) -> None:
        """Raise, without asking AIRisk, where that was of no use a moment ago, or is not to be done."""
        if not self.deployment.silent_renewal:
            self._require_silent_renewal(token)
        if is_recent(token.failed_at, timezone.now(), REPEAT_ERROR_FOR):
            raise self._as_seen_by_caller(token.last_error())

    def _claim_and_renew(self, token: AIRiskToken) -> Steps[AIRiskToken | None]:
        """Come to the renewed token, or to ``None`` where somebody else is at it or was faster."""
        lease = uuid4()
        try:
            mine = yield from query(self._claim, token, lease)
            if mine is None:
                return None
            outcome = yield from self._obtain(mine)
            saved = yield from query(self._save, mine, outcome, lease)
        except GeneratorExit:
            # Nobody is left to give the lease back; it lapses by itself.
            raise
        except BaseException:
            yield from query(_release, token, lease)
            raise
        if isinstance(outcome, AIRiskError):
            raise self._as_seen_by_caller(outcome)
        return mine if saved else None

    def _claim(self, token: AIRiskToken, lease: UUID) -> AIRiskToken | None:
        seconds = lease_seconds(self.deployment)
        row = AIRiskToken.objects.filter(pk=token.pk, user=token.user_id, userid=token.userid, sealed=token.sealed)
        for mine in claim(row, lease, now=timezone.now(), seconds=seconds):
            if mine.failed_at == token.failed_at:
                return mine
            save_and_release([mine], lease)
        return None

    def _save(self, mine: AIRiskToken, outcome: Outcome, lease: UUID) -> bool:
        before, is_first = unwritten.key_of(mine, self.deployment, _database()), not mine.sealed
        values = apply(mine, outcome, timezone.now())
        try:
            saved = save_and_release([mine], lease, values)
        except DatabaseError as error:
            # AIRisk has answered, and the caller can go on with that.
            unwritten.log_not_written(mine, error)
            self._keep(before, mine, values | {"lease": None, "lease_until": None}, outcome, is_first=is_first)
            return True
        if saved:
            announce(mine, outcome, is_first=is_first)
        return bool(saved)

    def _obtain(self, token: AIRiskToken) -> Steps[Outcome]:
        if token.sealed:
            # A host with a wrong key must not replace what the others can still open.
            yield from query(self._open, token)
        try:
            return (yield from obtain(self.deployment, token.requested_userid))
        except AIRiskError as error:
            # Returned, to be noted on the row before it is raised.
            return error

    def _take(self, token: AIRiskToken) -> Secret:
        """Open a token that is about to be used, and note once in a while that it is."""
        if not is_recent(token.last_used_at, timezone.now(), USE_IS_NOTED_EVERY):
            self._note(token, "last_used_at")
        return self._open(token)

    def _note(self, token: AIRiskToken, what: str) -> None:
        """Write the time of something to the token's row; a failure to write stops nobody."""
        self._write(token, {what: timezone.now()})

    def _note_refused_anew(self) -> None:
        # AIRisk's answer is what the caller waits for, whatever has become of the row.
        with suppress(DatabaseError, ConnectionRequired):
            self._note(self._read(), "refused_anew_at")

    def _write(self, token: AIRiskToken, values: dict[str, Any]) -> None:
        unwritten.keep(unwritten.key_of(token, self.deployment, _database()), token, values, _database())
        unwritten.write()

    def _require_silent_renewal(self, useless: AIRiskToken | None = None) -> None:
        if self.deployment.silent_renewal:
            return
        required = self._required("The stored token has ended or was refused, and is not renewed silently.")
        if useless is not None and not useless.needs_person:
            # On the row, because a token that AIRisk refused may look as if it lived.
            self._write(useless, useless.record_failure(required, timezone.now()))
        raise required

    def _required(self, message: str) -> ConnectionRequired:
        alias = self.deployment.alias
        url = None if self.owner is APPLICATION else conf.page_url("connect", alias)
        return ConnectionRequired(message, deployment=alias, connect_url=url)

    def _as_seen_by_caller(self, error: AIRiskError) -> AIRiskError:
        """Only a person can mend a refusal, by connecting again; the application has no such person."""
        refused = isinstance(error, AIRiskRefused) and self.owner is not APPLICATION
        if isinstance(error, ConnectionRequired) or refused:
            required = self._required(f"The stored token could not be renewed. {error}")
            required.__cause__ = error
            return required
        return error


def _database() -> str:
    """Return the database that the caller's tokens are in; a router may choose another one for each caller."""
    using: str = AIRiskToken.objects.primary().db
    return using


def _release(token: AIRiskToken, lease: UUID) -> None:
    """Give a lease up. Where that fails, it lapses by itself, and the error that led here is the one to be seen."""
    with suppress(DatabaseError):
        save_and_release([token], lease)
