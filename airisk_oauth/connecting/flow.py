"""Begin and complete a connection, by browser or silently. Builds no response."""

import hashlib
import logging
import time
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final, NamedTuple

from django.db import Error as DatabaseError
from django.db import IntegrityError
from django.utils import timezone

from ..database.expiry import is_recent
from ..events import log
from ..exceptions import AIRiskRefused
from ..models import MAX_NEXT, AIRiskToken, PendingAuthorization
from ..oauth.authorization import (
    authorization_url,
    read_callback,
)
from ..oauth.code_flow import exchange, new_state, obtain_or_exchange
from ..oauth.deployment import Deployment
from ..oauth.messages import Secret, TokenGrant
from ..signals import token_disconnected, token_obtained
from ..tokens.outcomes import store
from ..userids import userid_of

logger = logging.getLogger("airisk_oauth.flow")

#: How long a started flow may take, how long a second hit of its callback waits for the first, and how long (s) between
#: two looks.
LIFETIME: Final = timedelta(minutes=10)
WAIT_FOR_FIRST: Final = timedelta(seconds=15)
LOOK_AGAIN: Final = 0.1

_Outcome = PendingAuthorization.Outcome


class NoIdentity(Exception):
    """This user is nobody on AIRisk, as far as the site knows."""


class CallbackRejected(Exception):
    """The callback is not one that this browser, user and deployment wait for; nothing was sent to AIRisk."""


class StateExpired(CallbackRejected):
    """It was, but its ten minutes are over."""


class StateSpent(CallbackRejected):
    """It was, and it has been used, without success."""


class IdentityChanged(CallbackRejected):
    """The user is somebody else on AIRisk now than when the flow began."""

    def __str__(self) -> str:
        return "the user's identity on AIRisk has changed meanwhile"


class NotPermitted(CallbackRejected):
    """The user may not obtain the application's token, or not any more."""

    def __str__(self) -> str:
        return "the user may not obtain the application's token any more"


class Connected(NamedTuple):
    """A flow that ended well. ``first`` is false for a callback that came again."""

    pending: PendingAuthorization
    first: bool


def begin(
    deployment: Deployment, user: Any, *, browser: str, next_url: str = "", for_application: bool = False
) -> Secret:
    """Start a flow for this user in this browser, and return the URL to send the browser to.

    :param browser: a value that only this browser has, and only in this session.
    :raises NoIdentity: the user has no ``userid`` on this deployment.
    """
    userid = None if for_application else userid_of(deployment, user)
    if userid is None and not for_application:
        raise NoIdentity
    state = new_state()
    try:
        PendingAuthorization.objects.begin(
            state_hash=_hash(state),
            user=user,
            for_application=for_application,
            deployment=deployment.alias,
            userid=userid or "",
            next=next_url if len(next_url) <= MAX_NEXT else "",
            browser_hash=_bound(deployment, browser),
        )
    except IntegrityError:
        # The user has just been deleted.
        raise NoIdentity from None
    return authorization_url(deployment, state=state, userid=userid)


def complete(deployment: Deployment, user: Any, *, browser: str | None, query: Secret) -> Connected:
    """Finish the flow that this callback belongs to.

    :param query: the query string, as the browser brought it.
    :raises protocol.MalformedCallback: AIRisk cannot have sent this.
    :raises CallbackRejected: see there and its subclasses.
    :raises AIRiskError: AIRisk refused, could not be reached, or cannot be understood.
    """
    callback = read_callback(query)
    pending = _pending(deployment, user, browser, callback.state)
    if pending.spent_at is None and not is_recent(pending.created_at, timezone.now(), LIFETIME):
        raise StateExpired
    if callback.iss is not None and callback.iss.removesuffix("/") != deployment.base_url:
        raise CallbackRejected
    if not PendingAuthorization.objects.spend(pending.pk):
        return _completed_before(pending)
    try:
        _trade(deployment, user, pending, callback.answer)
    except BaseException:
        _settle(pending, _Outcome.FAILED)
        raise
    _settle(pending, _Outcome.CONNECTED)
    return Connected(pending, first=True)


def disconnect(token: AIRiskToken) -> None:
    """Forget a token. AIRisk has no way to revoke it: it lives there until its end."""
    user_id, deployment = token.user_id, token.deployment
    if AIRiskToken.objects.primary().filter(pk=token.pk).forget():
        message = "AIRisk token %(token_id)s of deployment %(deployment)s was disconnected"
        log(logger, logging.INFO, "token.disconnected", message, token=token)
        token_disconnected.send_robust(AIRiskToken, user_id=user_id, deployment=deployment)


def _pending(deployment: Deployment, user: Any, browser: str | None, state: Secret) -> PendingAuthorization:
    pending: PendingAuthorization | None = (
        PendingAuthorization.objects.primary()
        .filter(
            state_hash=_hash(state),
            user=user,
            deployment=deployment.alias,
            browser_hash=_bound(deployment, browser or ""),
        )
        .first()
    )
    if pending is None:
        raise CallbackRejected
    return pending


def _completed_before(pending: PendingAuthorization) -> Connected:
    """Answer a second hit of the same callback as the first one ended, waiting for it if it has not."""
    rows = PendingAuthorization.objects.primary().filter(pk=pending.pk)
    give_up = time.monotonic() + WAIT_FOR_FIRST.total_seconds()
    under_way = rows.filter(outcome=_Outcome.OPEN, spent_at__gt=timezone.now() - WAIT_FOR_FIRST)
    while under_way.exists() and time.monotonic() < give_up:
        time.sleep(LOOK_AGAIN)
    again: PendingAuthorization | None = rows.filter(outcome=_Outcome.CONNECTED).first()
    if again is None:
        raise StateSpent
    return Connected(again, first=False)


def _trade(deployment: Deployment, user: Any, pending: PendingAuthorization, answer: Secret | AIRiskRefused) -> None:
    if isinstance(answer, AIRiskRefused):
        raise answer
    _check_identity(deployment, user, pending)
    grant = _grant_for(deployment, pending, answer)
    _check_identity(deployment, user, pending)
    owner = None if pending.for_application else user.pk
    try:
        token = store(owner, deployment.alias, pending.userid, grant)
    except IntegrityError:
        raise IdentityChanged from None
    message = "AIRisk token %(token_id)s of deployment %(deployment)s was obtained"
    log(logger, logging.INFO, "token.obtained", message, token=token)
    token_obtained.send_robust(AIRiskToken, user_id=token.user_id, deployment=token.deployment)


def _grant_for(deployment: Deployment, pending: PendingAuthorization, code: Secret) -> TokenGrant:
    """Return the token for a verified callback: for its code, or for one that this server fetches (``CODE_FROM``)."""
    from ..oauth.transport import OAuthClient

    userid = pending.userid or None
    with OAuthClient(deployment) as client:
        if deployment.code_from == "server":
            return client.run(obtain_or_exchange, deployment, code, userid=userid)
        return client.run(exchange, deployment, code, userid=userid)


def _check_identity(deployment: Deployment, user: Any, pending: PendingAuthorization) -> None:
    if pending.for_application:
        if not may_change_tokens(user):
            raise NotPermitted
    elif userid_of(deployment, user) != pending.userid:
        raise IdentityChanged


def may_change_tokens(user: Any) -> bool:
    """Tell whether a user may obtain the application's token; nobody may where users have no permissions."""
    has_perm = getattr(user, "has_perm", None)
    return has_perm is not None and bool(has_perm("airisk_oauth.change_airisktoken"))


def _settle(pending: PendingAuthorization, outcome: str) -> None:
    # What became of the flow is what its user is told, be it noted or not.
    with suppress(DatabaseError):
        PendingAuthorization.objects.primary().filter(pk=pending.pk).write(outcome=outcome)


def _bound(deployment: Deployment, browser: str) -> str:
    """Return what a flow is bound to: its browser, and the address of AIRisk that it was sent to."""
    return _hash(f"{deployment.origin_text} {browser}")


def _hash(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()
