"""Connect a person to AIRisk: begin the flow, complete it, and disconnect again. Builds no response."""

import hashlib
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final, NamedTuple

from django.db import Error as DatabaseError
from django.db import IntegrityError
from django.db.models import Subquery
from django.utils import timezone

from .. import sealing
from ..database.expiry import is_recent
from ..events import log
from ..exceptions import AIRiskRefused
from ..models import MAX_NEXT, AIRiskIdentity, AIRiskToken, PendingAuthorization
from ..oauth.authorization import Callback, MalformedCallback, authorization_url, read_callback
from ..oauth.code_flow import exchange, new_state, obtain_or_exchange
from ..oauth.deployment import Deployment
from ..oauth.messages import Secret, TokenGrant
from ..signals import token_disconnected, token_obtained
from ..tokens import losses
from ..tokens.outcomes import store
from ..userids import userid_of
from .problems import ConnectionFailed
from .reasons import Reason

logger = logging.getLogger("airisk_oauth.flow")

#: How long a flow may take.
LIFETIME: Final = timedelta(minutes=10)
#: How long a repeated callback waits for the first one to finish, and how many seconds between two looks.
WAIT_FOR_FIRST: Final = timedelta(seconds=15)
POLL_INTERVAL: Final = 0.1

_Outcome = PendingAuthorization.Outcome


class Connected(NamedTuple):
    """A completed flow.

    :ivar first: false for a repeated callback.
    """

    pending: PendingAuthorization
    first: bool


class Begun(NamedTuple):
    """A flow that a browser has come back from, not verified any further."""

    pending: PendingAuthorization
    callback: Callback


def begin(
    deployment: Deployment, user: Any, *, browser: str, next_url: str = "", for_application: bool = False
) -> Secret:
    """Start a flow for this user in this browser, and return the URL on AIRisk to send the browser to.

    :param browser: a value that only this browser has, and only in this session.
    :param next_url: path to go to afterwards; one that is too long to be stored is ignored.
    :param for_application: obtain the application's token, not the user's.
    :raises ConnectionFailed: the user has no ``userid`` on this deployment.
    """
    userid = None if for_application else userid_of(deployment, user)
    if userid is None and not for_application:
        raise ConnectionFailed(Reason.NO_IDENTITY)
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
        raise ConnectionFailed(Reason.NO_IDENTITY) from None
    return authorization_url(deployment, state=state, userid=userid)


def begun(deployment: Deployment, user: Any, *, browser: str | None, query: Secret) -> Begun:
    """Return the flow that a callback belongs to.

    :param browser: as for :func:`begin`; ``None`` for a browser that has no such value.
    :param query: the callback's query string, undecoded.
    :raises ConnectionFailed: the callback is malformed, or not one that this user in this browser is waiting for.
    """
    try:
        callback = read_callback(query)
    except MalformedCallback:
        raise ConnectionFailed(Reason.MALFORMED_CALLBACK) from None
    return Begun(_pending(deployment, user, browser, callback.state), callback)


def complete(deployment: Deployment, user: Any, flow: Begun) -> Connected:
    """Complete a flow: verify its callback, and exchange the code for a token.

    :raises ConnectionFailed: the flow has expired or is spent, or the user's identity or permission has changed.
    :raises ImproperlyConfigured: there is no key to encrypt a token with; the callback can be repeated.
    :raises AIRiskError: AIRisk refused, could not be reached, or sent an answer that cannot be used.
    """
    pending, callback = flow
    if pending.spent_at is None and not is_recent(pending.created_at, timezone.now(), LIFETIME):
        raise ConnectionFailed(Reason.STATE_EXPIRED)
    if callback.iss is not None and callback.iss.removesuffix("/") != deployment.base_url:
        raise ConnectionFailed(Reason.CALLBACK_REJECTED)
    # Before the code is spent on a token that could not be encrypted.
    sealing.key_ids()
    if not PendingAuthorization.objects.spend(pending.pk):
        return _answer_repeated_callback(pending)
    try:
        _exchange_and_store(deployment, user, pending, callback.answer)
    except BaseException:
        _finish(pending, _Outcome.FAILED)
        raise
    _finish(pending, _Outcome.CONNECTED)
    return Connected(pending, first=True)


def next_of_rejected(alias: str, user: Any, query: Secret) -> str:
    """Return where a person wanted to go whose callback was rejected, or an empty string.

    That is what the flow with the callback's state says, or the user's last one, where AIRisk returned another state.
    Somebody who is signed out is known by the state alone.
    """
    flows = PendingAuthorization.objects.primary().filter(deployment=alias, created_at__gt=timezone.now() - LIFETIME)
    if is_signed_in := user.is_authenticated:
        flows = flows.filter(user=user)
    found = None
    with suppress(MalformedCallback):
        found = flows.filter(state_hash=_hash(read_callback(query).state)).first()
    if found is None and is_signed_in:
        # Ordered by key, because another host's clock may be ahead.
        found = flows.order_by("-pk").first()
    return "" if found is None else found.next


def disconnect(token: AIRiskToken) -> None:
    """Delete a stored token. AIRisk cannot revoke it: it stays valid there until it expires."""
    user_id, deployment = token.user_id, token.deployment
    if AIRiskToken.objects.primary().filter(pk=token.pk).forget():
        message = "AIRisk token %(token_id)s of %(owner)s on %(deployment)s was disconnected"
        log(logger, logging.INFO, "token.disconnected", message, token=token)
        token_disconnected.send_robust(AIRiskToken, user_id=user_id, deployment=deployment)


def _pending(deployment: Deployment, user: Any, browser: str | None, state: Secret) -> PendingAuthorization:
    """Return the flow that this user started with this state, in this browser and for this deployment."""
    # Read together, which saves a query.
    identity = AIRiskIdentity.objects.filter(user=user, deployment=deployment.alias).values("userid")
    started: PendingAuthorization | None = (
        PendingAuthorization.objects.primary()
        .filter(state_hash=_hash(state), user=user, deployment=deployment.alias)
        .annotate(identity=Subquery(identity))
        .first()
    )
    if started is None:
        raise ConnectionFailed(Reason.CALLBACK_REJECTED)
    if started.browser_hash != _bound(deployment, browser or ""):
        raise ConnectionFailed(Reason.SIGNED_IN_AGAIN)
    return started


def _answer_repeated_callback(pending: PendingAuthorization) -> Connected:
    """Give a repeated callback the first one's result; wait while the first is still running."""
    rows = PendingAuthorization.objects.primary().filter(pk=pending.pk)
    give_up = time.monotonic() + WAIT_FOR_FIRST.total_seconds()
    running = rows.filter(outcome=_Outcome.OPEN, spent_at__gt=timezone.now() - WAIT_FOR_FIRST)
    while running.exists() and time.monotonic() < give_up:
        time.sleep(POLL_INTERVAL)
    connected: PendingAuthorization | None = rows.filter(outcome=_Outcome.CONNECTED).first()
    if connected is None:
        raise ConnectionFailed(Reason.STATE_SPENT)
    return Connected(connected, first=False)


def _exchange_and_store(
    deployment: Deployment, user: Any, pending: PendingAuthorization, answer: Secret | AIRiskRefused
) -> None:
    if isinstance(answer, AIRiskRefused):
        raise answer
    _check_identity(deployment, user, pending, {deployment.alias: pending.identity})  # type: ignore[attr-defined]
    grant = _grant_for(deployment, pending, answer)
    # Staff may have changed it while AIRisk was called.
    _check_identity(deployment, user, pending)
    owner = None if pending.for_application else user.pk
    try:
        token = store(owner, deployment.alias, pending.userid, grant)
    except IntegrityError:
        # The user has just been deleted.
        raise ConnectionFailed(Reason.IDENTITY_CHANGED) from None
    message = "AIRisk token %(token_id)s of %(owner)s on %(deployment)s was obtained"
    log(logger, logging.INFO, "token.obtained", message, token=token)
    token_obtained.send_robust(AIRiskToken, user_id=token.user_id, deployment=token.deployment)
    losses.note_token(token)


def _grant_for(deployment: Deployment, pending: PendingAuthorization, code: Secret) -> TokenGrant:
    """Return the token for a verified callback: for its code, or for one that this server fetches (``CODE_FROM``)."""
    from ..oauth.transport import OAuthClient

    userid = pending.userid or None
    with OAuthClient(deployment) as client:
        if deployment.code_from == "server":
            return client.run(obtain_or_exchange, deployment, code, userid=userid)
        return client.run(exchange, deployment, code, userid=userid)


def _check_identity(
    deployment: Deployment, user: Any, pending: PendingAuthorization, known: Mapping[str, str] | None = None
) -> None:
    """Check that this user may still have the token that the flow was started for.

    :param known: as for :func:`.userid_of`.
    """
    if pending.for_application:
        if not _may_change_tokens(user):
            raise ConnectionFailed(Reason.NOT_PERMITTED)
    elif userid_of(deployment, user, known) != pending.userid:
        raise ConnectionFailed(Reason.IDENTITY_CHANGED)


def _may_change_tokens(user: Any) -> bool:
    # A site's users need not have permissions; then nobody has this one.
    has_perm = getattr(user, "has_perm", None)
    return has_perm is not None and bool(has_perm("airisk_oauth.change_airisktoken"))


def _finish(pending: PendingAuthorization, outcome: str) -> None:
    # A database that fails here must not hide from the user what the flow came to.
    with suppress(DatabaseError):
        PendingAuthorization.objects.primary().filter(pk=pending.pk).write(outcome=outcome)


def _bound(deployment: Deployment, browser: str) -> str:
    """Return a hash of what a flow is bound to: its browser, and the origin of AIRisk that the browser was sent to."""
    return _hash(f"{deployment.origin_text} {browser}")


def _hash(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()
