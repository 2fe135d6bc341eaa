"""Why a token must not be renewed, whatever AIRisk would answer."""

import logging
from typing import Any, cast

from django.contrib.auth import get_user_model
from django.db import Error as DatabaseError
from django.utils.module_loading import import_string

from ..events import log
from ..models import AIRiskToken
from ..oauth.deployment import Deployment
from ..sealing import Unreadable
from ..userids import userid_of
from .report import DEACTIVATED, IDENTITY_CHANGED, OTHER_ADDRESS, UNREADABLE, UNRESOLVED
from .selection import has_is_active_column

logger = logging.getLogger("airisk_oauth.sweep")


def reasons_to_skip(deployment: Deployment, tokens: list[AIRiskToken]) -> dict[Any, str]:
    """Return why tokens must not be renewed, by primary key; those that may be are left out."""
    user_ids = [token.user_id for token in tokens if token.user_id is not None]
    unresolved: set[Any] = set()
    userids = _userids(deployment, user_ids, unresolved)
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
        elif not _can_be_decrypted(token):
            reasons[token.pk] = UNREADABLE
    return reasons


def _can_be_decrypted(token: AIRiskToken) -> bool:
    """Tell whether this process has the token's key: without it, it must not replace what others can decrypt."""
    try:
        token.access_token  # noqa: B018
    except Unreadable:
        return False
    return True


def _userids(deployment: Deployment, user_ids: list[Any], unresolved: set[Any]) -> dict[Any, str | None]:
    """Return the ``userid`` of each user by user id; users for whom ``USERID`` fails are added to ``unresolved``."""
    resolver = import_string(deployment.userid)
    if hasattr(resolver, "many"):
        return cast("dict[Any, str | None]", resolver.many(user_ids, deployment.alias))
    userids: dict[Any, str | None] = {}
    for pk, user in get_user_model()._default_manager.in_bulk(user_ids).items():
        try:
            userids[pk] = userid_of(deployment, user)
        except DatabaseError:
            raise
        except Exception as error:  # noqa: BLE001 - the site's own code
            # A failure for one user must not keep the tokens of all others from being renewed.
            unresolved.add(pk)
            _log_failed_userid(deployment, pk, error)
    return userids


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
