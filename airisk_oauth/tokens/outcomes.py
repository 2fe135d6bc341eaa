"""The outcome of a renewal or of connecting: written to the row first, then logged and sent as a signal."""

import logging
import time
from contextlib import suppress
from datetime import datetime
from typing import Any, Final, TypeGuard

from django.db import IntegrityError
from django.utils import timezone

from ..events import log
from ..exceptions import AIRiskError, AIRiskRefused, ConnectionRequired
from ..models import AIRiskToken, AIRiskTokenQuerySet
from ..oauth.messages import TokenGrant
from ..signals import renewal_failed, token_obtained, token_renewed
from . import losses
from .report import REFUSED, RENEWED, UNAVAILABLE

logger = logging.getLogger("airisk_oauth.renewal")

#: How many times to try to store a token while concurrent connects, disconnects or deletions get in the way.
STORE_TRIES: Final = 5

#: AIRisk's answer to a wrong client or secret, and possibly to a user that it does not know.
UNAUTHORIZED: Final = 401

Outcome = TokenGrant | AIRiskError


def is_unauthorized(outcome: Outcome) -> TypeGuard[AIRiskRefused]:
    return isinstance(outcome, AIRiskRefused) and outcome.status == UNAUTHORIZED


def word_for(outcome: Outcome) -> str:
    """Return how reports and metrics count an outcome: ``renewed``, ``refused`` or ``unavailable``."""
    if isinstance(outcome, AIRiskRefused | ConnectionRequired):
        return REFUSED
    return UNAVAILABLE if isinstance(outcome, AIRiskError) else RENEWED


def log_answer(deployment: str, began: float, outcome: Outcome) -> None:
    """Log AIRisk's answer to a renewal, whatever becomes of the row.

    :param deployment: alias.
    :param began: when the renewal began, on the monotonic clock.
    """
    log(
        logger,
        logging.DEBUG,
        "renewal.finished",
        "A renewal on %(deployment)s took %(duration).3f s: %(outcome)s",
        why=outcome if isinstance(outcome, AIRiskError) else None,
        deployment=deployment,
        duration=round(time.monotonic() - began, 3),
        outcome=word_for(outcome),
    )


def store(user_id: Any, deployment: str, userid: str, grant: TokenGrant) -> AIRiskToken:
    """Save the token of a user who has just connected, and replace what was stored, failures and lease included.

    It is written without reading first, and outside a transaction: on SQLite, a transaction that begins by reading may
    not be able to write, and elsewhere it would lock rows that others need.

    :param user_id: ``None`` for the application's token.
    :param deployment: alias.
    :raises django.db.IntegrityError: the user was deleted.
    """
    token = AIRiskToken(user_id=user_id, deployment=deployment, userid=userid)
    values = token.apply(grant, timezone.now())
    for name in ("userid", "obtained_at", "last_used_at", "lease", "lease_until"):
        values[name] = getattr(token, name)
    there = AIRiskToken.objects.primary().filter(user=user_id, deployment=deployment)
    for _again in range(STORE_TRIES - 1):
        # A concurrent insert was faster, and its row may be gone again.
        with suppress(IntegrityError):
            return _put(there, token, values)
    return _put(there, token, values)


def _put(there: AIRiskTokenQuerySet, token: AIRiskToken, values: dict[str, Any]) -> AIRiskToken:
    stored: AIRiskToken | None = there.first() if there.write(**values) else None
    if stored is None:
        token.insert(there.db)
    return stored or token


def apply(token: AIRiskToken, outcome: Outcome, now: datetime) -> dict[str, Any]:
    """Set what an outcome changes, without saving, and return the changed columns with their values."""
    if isinstance(outcome, AIRiskError):
        return token.record_failure(outcome, now)
    return token.apply(outcome, now)


def announce(token: AIRiskToken, outcome: Outcome, *, is_first: bool) -> None:
    """Log the outcome of a renewal and send its signal; call this when the row is written.

    :param is_first: whether the row had no token before, so that this one was obtained, not renewed.
    """
    what = {"user_id": token.user_id, "deployment": token.deployment}
    if isinstance(outcome, AIRiskError):
        message = "AIRisk token %(token_id)s of %(owner)s on %(deployment)s was not renewed: %(why)s"
        log(logger, logging.WARNING, "token.renewal_failed", message, token=token, why=outcome)
        renewal_failed.send_robust(AIRiskToken, error=outcome, **what)
        losses.note_failure(token, outcome)
        return
    message = "AIRisk token %(token_id)s of %(owner)s on %(deployment)s was renewed"
    log(logger, logging.INFO, "token.obtained" if is_first else "token.renewed", message, token=token)
    (token_obtained if is_first else token_renewed).send_robust(AIRiskToken, **what)
    losses.note_token(token)
