"""The authorization code flow from this server, without a browser (RFC 6749, section 4.1)."""

import secrets

from django.utils import timezone

from ..exceptions import ConnectionRequired
from .authorization import PageShown, authorization_url, check_not_refused, own_page, read_authorization
from .deployment import Deployment
from .messages import Calls, ConnectionLost, OAuthRequest, Secret, TokenGrant
from .token import parse_token_response, token_form


def obtain_silently(deployment: Deployment, userid: str | None) -> Calls[TokenGrant]:
    """Run the whole code flow from this server (AIRisk answers the authorization endpoint at once).

    Where a connection that was used again dies before a byte of an answer, the flow starts anew, once: with another
    state and another code, since nobody knows whether the first were received.

    :raises ConnectionRequired: AIRisk wants a person, in a browser.
    :raises AIRiskError: AIRisk refused, could not be reached, or cannot be understood.
    """
    try:
        return (yield from _obtain_silently(deployment, userid))
    except ConnectionLost:
        pass
    return (yield from _obtain_silently(deployment, userid))


def _obtain_silently(deployment: Deployment, userid: str | None) -> Calls[TokenGrant]:
    try:
        code = yield from authorize(deployment, state=new_state(), userid=userid)
    except PageShown:
        raise ConnectionRequired("AIRisk asks for a person, in a browser.", deployment=deployment.alias) from None
    return (yield from exchange(deployment, code, userid=userid))


def authorize(deployment: Deployment, *, state: Secret, userid: str | None) -> Calls[Secret]:
    """Ask for a code without a browser. Errors: see :func:`protocol.read_authorization`.

    Where AIRisk leads to a page on its own origin, that is looked at once, because it may hold a refusal as JSON.
    """
    endpoint, redirect_uri = deployment.authorize_url, deployment.redirect_uri
    reply = yield OAuthRequest("GET", authorization_url(deployment, state=state, userid=userid))
    page = own_page(reply, endpoint=endpoint, redirect_uri=redirect_uri)
    if page is not None:
        check_not_refused((yield OAuthRequest("GET", page)), secrets=(state,))
    return read_authorization(reply, endpoint=endpoint, redirect_uri=redirect_uri, state=state)


def exchange(deployment: Deployment, code: Secret, *, userid: str | None) -> Calls[TokenGrant]:
    """Trade a code for a token, once. Errors: see :func:`protocol.read_token`."""
    form = token_form(deployment, code=code, userid=userid)
    reply = yield OAuthRequest("POST", deployment.token_url, form)
    grant = parse_token_response(reply, now=timezone.now(), secrets=(code, deployment.client_secret))
    return grant._replace(origin=deployment.origin_text)


def _obtain_or_exchange(deployment: Deployment, code: Secret, *, userid: str | None) -> Calls[TokenGrant]:
    """Obtain a token without the browser's code, which may be another user's; trade it only if AIRisk shows a page."""
    try:
        code = yield from authorize(deployment, state=new_state(), userid=userid)
    except PageShown:
        pass
    return (yield from exchange(deployment, code, userid=userid))


def new_state() -> Secret:
    """Return 256 random bits, as RFC 6749, section 10.12, asks for."""
    return Secret(secrets.token_urlsafe(32))
