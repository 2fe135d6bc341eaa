"""Announces that a connection was lost, and that it works again: each once, by one process.

A connection is lost when only a person can get it working: AIRisk refuses the user or shows a page, or a sweep may not
even ask. An outage is no loss. Whoever announces a loss sets ``lost_at`` on the row by one conditional ``UPDATE``, and
whoever announces the recovery clears it, so that they alternate, however many processes find out at once.
"""

import logging
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from django.db import Error as DatabaseError
from django.utils import timezone

from .. import conf
from ..database.expiry import SKEW
from ..database.failures import KNOWN_TO_NEED_PERSON
from ..events import log, log_not_written
from ..exceptions import AIRiskError, AIRiskRefused
from ..models import AIRiskToken
from ..signals import connection_lost, connection_restored

if TYPE_CHECKING:
    from django.db.models import QuerySet

logger = logging.getLogger("airisk_oauth.notices")

#: After so many losses of a deployment in a row, with no token from AIRisk in between, no other one is announced.
IN_A_ROW: Final = 25

#: Words of a refusal that concerns the site and not one of its users (RFC 6749, sections 4.1.2.1 and 5.2).
_OF_THE_SITE: Final = re.compile(r"client|redirect|request|response_type|scope|server_error|unavailable", re.IGNORECASE)
_OF_AN_OUTAGE: Final = re.compile(r"server_error|temporarily_unavailable")


def note_failure(token: AIRiskToken, error: AIRiskError) -> None:
    """Announce that a connection was lost, if a failed renewal shows it for certain; called once that is written.

    A loss that is not announced now, because AIRisk may have refused the site itself or because the database fails, is
    announced by a later failure or the next sweep.

    :param token: with ``lost_at`` as it was before.
    """
    if AIRiskToken.Failure.of(error) not in AIRiskToken.NEEDS_PERSON or token.lost_at is not None:
        return
    try:
        if not is_doubtful(token, error) and not many_in_a_row(token):
            announce_loss(token, error, connect_url(token))
    except DatabaseError as failure:
        log_not_written(token, failure)


def note_token(token: AIRiskToken) -> None:
    """Announce that a lost connection works again; called once its new token is written.

    :param token: with ``lost_at`` as it was before.
    """
    if token.lost_at is None:
        return
    try:
        cleared = AIRiskToken.objects.primary().filter(pk=token.pk, lost_at__isnull=False).write(lost_at=None)
    except DatabaseError as failure:
        log_not_written(token, failure)
        return
    if cleared:
        message = "The connection of AIRisk token %(token_id)s to deployment %(deployment)s works again"
        log(logger, logging.INFO, "connection.restored", message, token=token)
        connection_restored.send_robust(AIRiskToken, user_id=token.user_id, deployment=token.deployment)


def announce_loss(token: AIRiskToken, error: AIRiskError, connect_url: str | None) -> None:
    """Announce that a connection was lost, unless another process has."""
    row = AIRiskToken.objects.primary().filter(KNOWN_TO_NEED_PERSON, pk=token.pk, lost_at=None)
    if not row.write(lost_at=timezone.now()):
        return
    message = "The connection of AIRisk token %(token_id)s to deployment %(deployment)s is lost: %(why)s"
    log(logger, logging.INFO, "connection.lost", message, token=token, why=error)
    what = {"user_id": token.user_id, "deployment": token.deployment}
    connection_lost.send_robust(AIRiskToken, error=error, connect_url=connect_url, **what)


def connect_url(token: AIRiskToken) -> str | None:
    """Return the path of the page to connect on; ``None`` for the application, or if the site has no such page."""
    return None if token.user_id is None else conf.page_url("connect", token.deployment)


def is_doubtful(token: AIRiskToken, error: AIRiskError) -> bool:
    """Tell whether a refusal may concern the site itself, or an outage, and not this token's user.

    401 is what AIRisk answers to an unknown client. A refusal of AIRisk's own has a reason or a trace id; a proxy's has
    neither. The application's token belongs to the site, so a refused site is its loss.
    """
    if not isinstance(error, AIRiskRefused):
        return False
    if token.user_id is None:
        return _OF_AN_OUTAGE.search(error.reason) is not None
    is_a_proxys = error.status != HTTPStatus.FOUND and not (error.reason or error.trace_id)
    return error.status == HTTPStatus.UNAUTHORIZED or is_a_proxys or _OF_THE_SITE.search(error.reason) is not None


def accepted_since(token: AIRiskToken) -> bool:
    """Tell whether AIRisk has given this site another token of the deployment since it refused this one."""
    since = token.failed_at
    return since is not None and _given(token).filter(renewed_at__gt=since).exists()


def many_in_a_row(token: AIRiskToken) -> bool:
    """Tell whether so many connections were lost in a row that the users are not the likely cause.

    A maintenance page, or a mistake in the settings, would have everybody connect again.
    """
    if token.user_id is None:
        return False
    lost = AIRiskToken.objects.primary().filter(deployment=token.deployment, user__isnull=False)
    latest = lost.filter(lost_at__lte=timezone.now() + SKEW).order_by("-lost_at").values_list("lost_at", flat=True)
    times = list(latest[:IN_A_ROW])
    return len(times) == IN_A_ROW and not _given(token).filter(renewed_at__gt=times[-1]).exists()


def _given(token: AIRiskToken) -> "QuerySet[Any]":
    """Return the tokens of the same deployment that AIRisk gave; not by a clock that was wrong."""
    tokens = AIRiskToken.objects.primary().filter(deployment=token.deployment, renewed_at__lte=timezone.now() + SKEW)
    return tokens.exclude(sealed="")
