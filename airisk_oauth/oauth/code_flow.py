"""The authorization code flow from this server, without a browser (RFC 6749, section 4.1).

Coroutines over ``send``: they decide what to send and how to read the answer; a transport sends, blocking or not.
"""

import secrets
from contextlib import suppress

from django.utils import timezone

from ..exceptions import ConnectionRequired
from .authorization import PageShown, authorization_url, check_not_refused, own_page, read_authorization
from .calls import Send
from .deployment import Deployment
from .messages import ConnectionLost, OAuthRequest, Secret, TokenGrant
from .token import parse_token_response, token_form


async def obtain_silently(send: Send, deployment: Deployment, userid: str | None) -> TokenGrant:
    """Obtain a token without a browser: AIRisk answers our server's authorization request at once.

    Where a reused connection is closed before a byte of an answer came, the flow starts over, once: with another state
    and another code, because nobody knows whether AIRisk received the first ones.

    :param userid: ``None`` for the application's token.
    :raises ConnectionRequired: AIRisk requires a sign-in in a browser.
    :raises AIRiskError: AIRisk refused, could not be reached, or answered something unusable.
    """
    with suppress(ConnectionLost):
        return await _obtain_once(send, deployment, userid)
    return await _obtain_once(send, deployment, userid)


async def _obtain_once(send: Send, deployment: Deployment, userid: str | None) -> TokenGrant:
    try:
        code = await authorize(send, deployment, state=new_state(), userid=userid)
    except PageShown:
        raise ConnectionRequired("AIRisk requires a sign-in in a browser.", deployment=deployment.alias) from None
    return await exchange(send, deployment, code, userid=userid)


async def obtain_or_exchange(send: Send, deployment: Deployment, code: Secret, *, userid: str | None) -> TokenGrant:
    """Obtain a token with a code of our own; exchange the browser's only if AIRisk shows our server a page.

    The browser's code may be another user's (``CODE_FROM``). Errors: as :func:`exchange`.
    """
    with suppress(PageShown):
        code = await authorize(send, deployment, state=new_state(), userid=userid)
    return await exchange(send, deployment, code, userid=userid)


async def authorize(send: Send, deployment: Deployment, *, state: Secret, userid: str | None) -> Secret:
    """Request a code without a browser. Errors: see :func:`.authorization.read_authorization`.

    Where AIRisk redirects to a page on its own origin, that page is requested once: it may be a refusal as JSON.
    """
    endpoint, redirect_uri = deployment.authorize_url, deployment.redirect_uri
    reply = await send(OAuthRequest("GET", authorization_url(deployment, state=state, userid=userid)))
    page = own_page(reply, endpoint=endpoint, redirect_uri=redirect_uri)
    if page is not None:
        check_not_refused(await send(OAuthRequest("GET", page)), secrets=(state,))
    return read_authorization(reply, endpoint=endpoint, redirect_uri=redirect_uri, state=state)


async def exchange(send: Send, deployment: Deployment, code: Secret, *, userid: str | None) -> TokenGrant:
    """Exchange a code for a token, once. Errors: see :func:`.token.parse_token_response`."""
    form = token_form(deployment, code=code, userid=userid)
    reply = await send(OAuthRequest("POST", deployment.token_url, form))
    grant = parse_token_response(reply, now=timezone.now(), secrets=(code, deployment.client_secret))
    return grant._replace(origin=deployment.origin_text)


def new_state() -> Secret:
    """Return 256 random bits, as RFC 6749, section 10.12, requires."""
    return Secret(secrets.token_urlsafe(32))
