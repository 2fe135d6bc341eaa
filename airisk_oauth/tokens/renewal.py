"""One renewal at a time per token, across threads, processes and hosts.

A token that expires soon is renewed by one caller, while all others go on using it. One that has expired, or that
AIRisk rejected, is renewed by one caller, while the others wait and use the result. A renewal is claimed by a lease on
the token's row, which expires by itself if its holder dies.

Inside a caller's transaction nothing is claimed, written or waited for; see :mod:`.unwritten`.
"""

import logging
import time
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID, uuid4

from django.db import Error as DatabaseError
from django.utils import timezone

from ..database.expiry import SKEW
from ..database.transactions import after_commit, in_transaction
from ..events import log, log_not_written
from ..exceptions import AIRiskError
from ..models import AIRiskToken
from ..oauth.calls import run
from ..oauth.deployment import Deployment
from ..oauth.messages import Secret
from . import unwritten
from .leases import claim, lease_seconds, save_and_release
from .outcomes import Outcome, announce, apply, log_answer
from .stored import StoredToken
from .turns import Key
from .waiting import BLOCKING, Waiting

logger = logging.getLogger("airisk_oauth.renewal")

#: How long a caller pauses before it looks again at a token that another process renews, in seconds: first and longest.
FIRST_LOOK: Final = 0.05
LAST_LOOK: Final = 0.25


class Credential(NamedTuple):
    """A token for a call.

    :ivar trusted_until: until when to use it without asking for it again (aware).
    :ivar just_renewed: whether it was renewed for this very caller.
    """

    token: Secret
    trusted_until: datetime
    just_renewed: bool

    @property
    def header(self) -> Secret:
        """The value of ``Authorization``; the frames of a call hold its headers, and crash reports show frames."""
        return Secret(f"Bearer {self.token}")


class Renewal:
    """Keeps one owner's token valid.

    :param waiting: how to wait; its rules are coroutines.
    """

    def __init__(self, stored: StoredToken, waiting: Waiting = BLOCKING) -> None:
        self.stored = stored
        self._waiting = waiting

    @property
    def deployment(self) -> Deployment:
        return self.stored.deployment

    async def credential(self, rejected: str | None = None) -> Credential:
        """Return a token for a call, renewed first if it has expired; if it expires soon, it may be renewed too.

        :param rejected: a token that AIRisk has just answered with 401. Another one is returned, unless AIRisk has
            rejected a new one within the last minute, too (:meth:`note_rejected_new_token`).
        :raises ConnectionRequired: a person has to connect.
        :raises AIRiskError: the token has expired or was rejected, and could not be renewed.
        """
        token, is_usable, in_transaction = await self._waiting.query(self.stored.look, rejected)
        before = token.sealed
        if not is_usable and in_transaction:
            token = await self._renew_unwritten(rejected)
        elif not is_usable:
            token = await self._renew_or_wait(rejected)
        elif self.stored.is_due(token):
            token = await self._renew_early(token)
        secret = await self._waiting.query(self.stored.take, token)
        return Credential(secret, self.stored.trusted_until(token), just_renewed=token.sealed != before)

    async def note_rejected_new_token(self) -> None:
        """Remember that AIRisk rejected a token that had just been renewed: another new one would not help."""
        await self._waiting.query(self.stored.note_rejected_new_token)

    async def renew(self) -> bool:
        """Renew now, however long the token is still valid; false if another process is renewing it.

        :raises AIRiskError: as :meth:`credential`.
        """
        token = await self._waiting.query(self.stored.read)
        self.stored.require_silent_renewal()
        return await self._claim_and_renew(token) is not None

    async def _renew_early(self, token: AIRiskToken) -> AIRiskToken:
        """Renew a valid token, unless another process does; inside a transaction, after the commit."""
        postponed = await self._waiting.query(self._postpone, token)
        return token if postponed else await self._try_to_renew(token)

    def _postpone(self, token: AIRiskToken) -> bool:
        # Runs blocking, whichever side the caller is on: Django calls it after the commit.
        later, using = Renewal(self.stored), self.stored.using
        return after_commit(using, lambda: run(later._try_to_renew(token))) or in_transaction(using)

    async def _try_to_renew(self, token: AIRiskToken) -> AIRiskToken:
        try:
            renewed = await self._claim_and_renew(token)
            return await self._waiting.query(self.stored.read) if renewed is None else renewed
        except (AIRiskError, DatabaseError) as error:
            message = (
                "AIRisk token %(token_id)s of %(owner)s on %(deployment)s stays in use, because its early renewal "
                "failed: %(why)s"
            )
            log(logger, logging.WARNING, "token.early_renewal_failed", message, token=token, why=error)
            return token

    async def _renew_or_wait(self, rejected: str | None) -> AIRiskToken:
        """Renew the token, or wait for the process that is renewing it, and return the result.

        Nobody waits for longer than a flow may take: AIRisk gives a token to everyone who asks.
        """
        give_up, pause = time.monotonic() + self.deployment.timeout[1], FIRST_LOOK
        while time.monotonic() < give_up:
            token, is_usable, _in_transaction = await self._waiting.query(self.stored.look, rejected)
            if is_usable:
                return token
            await self._waiting.query(self.stored.raise_known_error, token)
            try:
                renewed = await self._claim_and_renew(token) if self._is_free(token) else None
            except DatabaseError as error:
                await self._waiting.query(log_not_written, token, error)
                break
            if renewed is not None:
                return renewed
            await self._waiting.sleep(pause)
            pause = min(pause * 1.5, LAST_LOOK)
        return await self._renew_unwritten(rejected)

    def _is_free(self, token: AIRiskToken) -> bool:
        """Tell whether claiming has a chance; :func:`.leases.claim` ignores leases that are too long."""
        left = timedelta(0) if token.lease_until is None else token.lease_until - timezone.now()
        return not timedelta(0) < left <= timedelta(seconds=lease_seconds(self.deployment)) + SKEW

    async def _claim_and_renew(self, token: AIRiskToken) -> AIRiskToken | None:
        """Return the renewed token, or ``None`` if another process is renewing it or has just done so."""
        lease = uuid4()
        try:
            mine = await self._waiting.query(self._claim, token, lease)
            if mine is None:
                return None
            outcome = await self._obtain(mine)
            saved = await self._waiting.query(self._save, mine, outcome, lease)
        except GeneratorExit:
            # The event loop is gone, and nobody is left to give the lease up; it expires by itself.
            raise
        except BaseException:
            await self._waiting.query(_release, token, lease)
            raise
        if isinstance(outcome, AIRiskError):
            raise self.stored.for_caller(outcome)
        return mine if saved else None

    def _claim(self, token: AIRiskToken, lease: UUID) -> AIRiskToken | None:
        seconds = lease_seconds(self.deployment)
        row = AIRiskToken.objects.filter(pk=token.pk, user=token.user_id, userid=token.userid, sealed=token.sealed)
        for mine in claim(row, lease, now=timezone.now(), seconds=seconds):
            if mine.failed_at == token.failed_at:
                return mine
            save_and_release([mine], lease)
        return None

    async def _obtain(self, token: AIRiskToken) -> Outcome:
        await self._waiting.query(self.stored.require_key, token)
        began = time.monotonic()
        try:
            outcome: Outcome = await self._waiting.obtain(self.deployment, token.requested_userid)
        except AIRiskError as error:
            # Returned, to be noted on the row before it is raised.
            outcome = error
        log_answer(self.deployment.alias, began, outcome)
        return outcome

    def _save(self, mine: AIRiskToken, outcome: Outcome, lease: UUID) -> bool:
        before, is_first = self.stored.key_of(mine), not mine.sealed
        values = apply(mine, outcome, timezone.now())
        try:
            saved = save_and_release([mine], lease, values)
        except DatabaseError as error:
            # AIRisk has answered, and the caller can go on with that.
            log_not_written(mine, error)
            values |= {"lease": None, "lease_until": None}
            self._keep(before, mine, values, outcome, is_first=is_first)
            return True
        if saved:
            announce(mine, outcome, is_first=is_first)
        return bool(saved)

    async def _renew_unwritten(self, rejected: str | None) -> AIRiskToken:
        """Renew without a lease, for a caller who cannot write, or whose transaction may be rolled back."""
        token = await self._waiting.query(self.stored.read)
        key = await self._waiting.query(self.stored.key_of, token)
        return await self._waiting.in_turn(self._obtain_unwritten(rejected), key, self.deployment.timeout[1])

    async def _obtain_unwritten(self, rejected: str | None) -> AIRiskToken:
        token, is_usable, _in_transaction = await self._waiting.query(self.stored.look, rejected)
        if is_usable:
            return token
        await self._waiting.query(self.stored.raise_known_error, token)
        before, is_first = await self._waiting.query(self.stored.key_of, token), not token.sealed
        outcome = await self._obtain(token)
        values = apply(token, outcome, timezone.now())
        await self._waiting.query(self._keep, before, token, values, outcome, is_first=is_first)
        if isinstance(outcome, AIRiskError):
            raise self.stored.for_caller(outcome)
        return token

    def _keep(
        self, before: Key, token: AIRiskToken, values: dict[str, Any], outcome: Outcome, *, is_first: bool
    ) -> None:
        lost_at = token.lost_at

        def announce_row(row: AIRiskToken) -> None:
            row.lost_at = lost_at
            announce(row, outcome, is_first=is_first)

        unwritten.keep(before, token, values, self.stored.using, announce_row)
        unwritten.write()


def _release(token: AIRiskToken, lease: UUID) -> None:
    """Give a lease up; if that fails it expires by itself, and the error that led here is the one to report."""
    with suppress(DatabaseError):
        save_and_release([token], lease)


def renew_now(deployment: Deployment, owner: Any) -> bool:
    """Renew this owner's token, blocking. See :meth:`Renewal.renew`."""
    return run(Renewal(StoredToken(deployment, owner)).renew())
