"""Why a token must not be renewed, whatever AIRisk would answer."""

import logging
from typing import Any

from django.contrib.auth import get_user_model

from ..events import log, log_unreadable
from ..models import AIRiskToken
from ..oauth.deployment import Deployment
from ..providers.source import SettingUnavailable
from ..sealing import Unreadable
from ..userids import userids_of
from .report import DEACTIVATED, IDENTITY_CHANGED, KEYS_UNAVAILABLE, OTHER_ADDRESS, UNREADABLE, UNRESOLVED
from .selection import has_is_active_column, is_known_to_need_person

logger = logging.getLogger("airisk_oauth.sweep")


def reasons_to_skip(deployment: Deployment, tokens: list[AIRiskToken]) -> dict[Any, str]:
    """Return why tokens must not be renewed, by primary key; those that may be are left out."""
    user_ids = [token.user_id for token in tokens if token.user_id is not None]
    unresolved: set[Any] = set()

    def note_failure(user_id: Any, error: Exception) -> None:
        unresolved.add(user_id)
        _log_failed_userid(deployment, user_id, error)

    userids = userids_of(deployment, user_ids, note_failure)
    deactivated = _deactivated_by_property(user_ids)
    reasons = {}
    for token in tokens:
        if token.user_id in deactivated:
            reasons[token.pk] = DEACTIVATED
        elif token.user_id in unresolved:
            reasons[token.pk] = UNRESOLVED
        elif token.user_id is not None and userids.get(token.user_id) != token.userid:
            reasons[token.pk] = IDENTITY_CHANGED
        elif token.user_id is not None and not token.is_from(deployment):
            reasons[token.pk] = OTHER_ADDRESS
        elif (reason := _reason_not_to_decrypt(token)) is not None:
            reasons[token.pk] = reason
    return reasons


def _reason_not_to_decrypt(token: AIRiskToken) -> str | None:
    """Return why this process lacks the token's key, if it does: it must not replace what others can decrypt."""
    try:
        token.access_token  # noqa: B018
    except SettingUnavailable:
        return KEYS_UNAVAILABLE
    except Unreadable as error:
        if not is_known_to_need_person(token):
            log_unreadable(token, error)
        return UNREADABLE
    return None


def _log_failed_userid(deployment: Deployment, user_id: Any, error: Exception) -> None:
    message = "%(resolver)s failed for user %(user_id)s: %(error)s"
    fields = {"resolver": deployment.userid, "user_id": user_id, "deployment": deployment.alias}
    log(logger, logging.WARNING, "sweep.userid_failed", message, error=type(error).__name__, **fields)


def _deactivated_by_property(user_ids: list[Any]) -> set[Any]:
    """Return which users are deactivated, if ``is_active`` is a property: the query looks at columns only."""
    users = get_user_model()
    if has_is_active_column() or isinstance(getattr(users, "is_active", True), bool):
        return set()
    return {pk for pk, user in users._base_manager.in_bulk(user_ids).items() if not user.is_active}
