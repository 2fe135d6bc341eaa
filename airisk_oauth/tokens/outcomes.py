"""What a renewal or a person's connecting brought: on the row first, then in the log and as a signal."""

import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from django.db import IntegrityError
from django.utils import timezone

from ..events import log
from ..exceptions import AIRiskError
from ..models import AIRiskToken, AIRiskTokenQuerySet
from ..oauth.messages import TokenGrant
from ..signals import renewal_failed, token_obtained, token_renewed
from . import losses
from .leases import save_and_release

logger = logging.getLogger("airisk_oauth.renewal")

#: How often a connection is stored again after a concurrent connect, disconnect or deletion got in the way.
STORE_TRIES: Final = 5

Outcome = TokenGrant | AIRiskError


def store(user_id: Any, deployment: str, userid: str, grant: TokenGrant) -> AIRiskToken:
    """Save the token of somebody who has just connected, replacing whatever was there, failures and lease included.

    Written without reading first, and outside a transaction: one that begins with reading may not go on to write on
    SQLite, and locks rows that others need.

    :param user_id: ``None`` for the application's token.
    :param deployment: alias.
    :raises django.db.IntegrityError: the user is gone.
    """
    token = AIRiskToken(user_id=user_id, deployment=deployment, userid=userid)
    values = token.apply(grant, timezone.now())
    for name in ("userid", "obtained_at", "last_used_at", "lease", "lease_until"):
        values[name] = getattr(token, name)
    there = AIRiskToken.objects.primary().filter(user=user_id, deployment=deployment)
    for _again in range(STORE_TRIES - 1):
        # A concurrent insert came first, and may be gone again.
        with suppress(IntegrityError):
            return _put(there, token, values)
    return _put(there, token, values)


def _put(there: AIRiskTokenQuerySet, token: AIRiskToken, values: dict[str, Any]) -> AIRiskToken:
    stored: AIRiskToken | None = there.first() if there.write(**values) else None
    if stored is None:
        token.insert(there.db)
    return stored or token


def apply(token: AIRiskToken, outcome: Outcome, now: datetime) -> dict[str, Any]:
    """Take over an outcome, without saving, and return the columns that this changed with their values."""
    if isinstance(outcome, AIRiskError):
        return token.record_failure(outcome, now)
    return token.apply(outcome, now)


def save_outcomes(
    outcomes: list[tuple[AIRiskToken, Outcome]],
    lease: UUID,
    save: Callable[..., list[AIRiskToken]] = save_and_release,
) -> list[AIRiskToken]:
    """Save the outcomes of renewals to those rows whose lease is still held, and return these.

    A row that lost its lease holds something newer, or is gone: its outcome is dropped.
    """
    now = timezone.now()
    first = {token.pk for token, _outcome in outcomes if not token.sealed}
    of_row = {token.pk: outcome for token, outcome in outcomes}
    by_fields: dict[tuple[str, ...], list[AIRiskToken]] = {}
    for token, outcome in outcomes:
        by_fields.setdefault(tuple(apply(token, outcome, now)), []).append(token)
    saved = [token for fields, tokens in by_fields.items() for token in save(tokens, lease, fields)]
    for token in saved:
        announce(token, of_row[token.pk], is_first=token.pk in first)
    return saved


def announce(token: AIRiskToken, outcome: Outcome, *, is_first: bool) -> None:
    """Log the outcome of a renewal and send its signal; called once the row is written.

    :param is_first: whether this is the first token of the row, so that it was obtained and not renewed.
    """
    what = {"user_id": token.user_id, "deployment": token.deployment}
    if isinstance(outcome, AIRiskError):
        message = "AIRisk token %(token_id)s of deployment %(deployment)s was not renewed: %(why)s"
        log(logger, logging.WARNING, "token.renewal_failed", message, token=token, why=outcome)
        renewal_failed.send_robust(AIRiskToken, error=outcome, **what)
        losses.note_failure(token, outcome)
        return
    message = "AIRisk token %(token_id)s of deployment %(deployment)s was renewed"
    log(logger, logging.INFO, "token.obtained" if is_first else "token.renewed", message, token=token)
    (token_obtained if is_first else token_renewed).send_robust(AIRiskToken, **what)
    losses.note_token(token)
