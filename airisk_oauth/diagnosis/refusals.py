"""Why AIRisk refuses: a cause is named only where AIRisk names it, or where other requests rule out the rest."""

import secrets
import uuid
from dataclasses import replace
from typing import Final
from urllib.parse import urljoin

from ..exceptions import AIRiskError, AIRiskRefused
from ..oauth.authorization import PageShown, authorization_url
from ..oauth.calls import Send
from ..oauth.code_flow import authorize, exchange, new_state, obtain_silently
from ..oauth.deployment import Deployment
from ..oauth.messages import OAuthRequest, OAuthResponse, Secret
from ..oauth.transport import OAuthClient
from .faults import ADMINISTRATOR, SITE, STAFF, Fault, is_airisks_own, refused

_FROM_IDENTITY: Final = "airisk_oauth.userids.from_identity"
#: Statuses of an address at which there is no endpoint.
_NOTHING_THERE: Final = (404, 405)


def authorization_refused(
    deployment: Deployment, userid: str | None, error: AIRiskRefused, *, callback_fits: bool
) -> Fault:
    """Return why the authorization endpoint says no.

    :param callback_fits: whether ``REDIRECT_URI`` is this site's callback.
    """
    with OAuthClient(deployment) as client:
        if userid is not None and _outcome(client, deployment, None) is None:
            return Fault(f"AIRisk refuses the userid {userid}, and answers without one. {error}.", _correct(deployment))
        if error.status in _NOTHING_THERE:
            return Fault(
                f"There is no authorization endpoint at {deployment.authorize_url}. {error}.",
                f"{SITE} correct BASE_URL, or AUTHORIZE_PATH.",
            )
        at_fault = _option_at_fault(client, deployment, userid, error) if is_airisks_own(error) else ""
    if at_fault == "USERID":
        return Fault(f"AIRisk refuses the userid {userid}. {error}.", _correct(deployment))
    if at_fault == "CLIENT_ID":
        return Fault(
            f"AIRisk does not know CLIENT_ID {deployment.client_id}. {error}.",
            f"{SITE} set CLIENT_ID to the client_id of an APIUser of this deployment.",
        )
    if at_fault == "REDIRECT_URI":
        return _not_registered(deployment, error, callback_fits=callback_fits)
    if at_fault:
        return Fault(
            f"AIRisk does not know CLIENT_ID {deployment.client_id}, or not REDIRECT_URI {deployment.redirect_uri}: "
            f"it says the same of both. {error}.",
            f"{ADMINISTRATOR} compare both with those of the APIUser.",
        )
    return refused(error, deployment.client_id)


def _not_registered(deployment: Deployment, error: AIRiskRefused, *, callback_fits: bool) -> Fault:
    said = f"AIRisk does not know REDIRECT_URI {deployment.redirect_uri}. {error}."
    if not callback_fits:
        return Fault(said, f"{SITE} first correct REDIRECT_URI, which is not this site's callback either.")
    return Fault(
        said,
        f"{ADMINISTRATOR} if that is this site's address, add exactly this to the redirect URIs of the APIUser "
        f"{deployment.client_id}. {SITE} if it is misspelt, correct it.",
    )


def token_refused(deployment: Deployment, userid: str | None, error: AIRiskRefused) -> Fault:
    """Return why the token endpoint says no to a code that has just come."""
    if error.status in _NOTHING_THERE:
        return Fault(
            f"There is no token endpoint at {deployment.token_url}. {error}.",
            f"{SITE} correct BASE_URL, or TOKEN_PATH.",
        )
    if not is_airisks_own(error):
        return refused(error, deployment.client_id)
    with OAuthClient(deployment) as client:
        if userid is not None and _can_obtain(client, deployment):
            said = f"AIRisk refuses a token for the userid {userid}, and gives one without. {error}."
            return Fault(said, _correct(deployment))
        # CLIENT_ID is known, because a code came for it.
        is_known = error.status != 401 or _is_known(client, deployment, userid)
        if "client_secret" in error.reason:
            is_known = False
    correct = f"{SITE} set CLIENT_SECRET to the client_secret of the APIUser {deployment.client_id}."
    if is_known is False:
        return Fault(f"AIRisk does not accept CLIENT_SECRET. {error}.", correct)
    if is_known is None:
        return Fault(
            f"{error}, which AIRisk documents for a client that it does not know.",
            f"{correct} {ADMINISTRATOR} if it is that, look up why this client is refused.",
        )
    return refused(error, deployment.client_id)


def look_again(client: OAuthClient, deployment: Deployment, userid: str | None) -> OAuthResponse | None:
    """Return what the authorization endpoint answers, as it comes; ``None`` where that is nothing."""

    async def flow(send: Send) -> OAuthResponse:
        return await send(OAuthRequest("GET", authorization_url(deployment, state=new_state(), userid=userid)))

    try:
        return client.run(flow)
    except AIRiskError:
        return None


def _option_at_fault(client: OAuthClient, deployment: Deployment, userid: str | None, error: AIRiskRefused) -> str:
    """Return ``CLIENT_ID``, ``REDIRECT_URI`` or ``USERID``, ``BOTH`` for one of the first two, or an empty string."""
    options = ["CLIENT_ID", "REDIRECT_URI"] if userid is None else ["CLIENT_ID", "REDIRECT_URI", "USERID"]
    for option in options:
        if option.lower() in error.reason.lower():
            return option
    reply = look_again(client, deployment, userid)
    if reply is None or (reply.location or "").partition("?")[0] == deployment.redirect_uri:
        # AIRisk sends refusals there only if it knows client and address.
        return ""
    unregistered = urljoin(deployment.redirect_uri, f"/{uuid.uuid4()}/")
    other_client = _outcome(client, replace(deployment, client_id=str(uuid.uuid4())), userid)
    other_address = _outcome(client, replace(deployment, redirect_uri=unregistered), userid)
    same = [
        option
        for option, other in (("CLIENT_ID", other_client), ("REDIRECT_URI", other_address))
        if _alike(error, other)
    ]
    if not same and userid is not None:
        # A client that is refused whoever it asks for is refused without a userid in the same words.
        without, other_user = (_outcome(client, deployment, each) for each in (None, str(uuid.uuid4())))
        return "USERID" if _alike(error, other_user) and not _alike(error, without) else ""
    if len(same) < 2:
        return "".join(same)
    # An unknown client is refused whatever address it names; whether it is known, the token endpoint may tell.
    return {True: "REDIRECT_URI", False: "CLIENT_ID", None: "BOTH"}[_is_known(client, deployment, userid)]


def _alike(error: AIRiskRefused, other: AIRiskError | None) -> bool:
    return isinstance(other, AIRiskRefused) and (other.status, other.reason) == (error.status, error.reason)


def _outcome(client: OAuthClient, deployment: Deployment, userid: str | None) -> AIRiskError | None:
    """Return how asking for a code fails; ``None``: a code came, or a page for a person."""
    try:
        client.run(authorize, deployment, state=new_state(), userid=userid)
    except PageShown:
        return None
    except AIRiskError as error:
        return error
    return None


def _can_obtain(client: OAuthClient, deployment: Deployment) -> bool:
    """Tell whether the application gets a token."""
    try:
        client.run(obtain_silently, deployment, None)
    except AIRiskError:
        return False
    return True


def _is_known(client: OAuthClient, deployment: Deployment, userid: str | None) -> bool | None:
    """Tell whether the token endpoint knows this client and its secret; ``None`` where it does not show that.

    It has to refuse a code that it never gave: by 401 if it looks at the client first and does not know it, by 400 if
    it knows it, or looks at the code first. Which of these, a client that is made up shows.
    """
    made_up = replace(deployment, client_id=str(uuid.uuid4()), client_secret=Secret(secrets.token_urlsafe(32)))
    ours = _made_up_code(client, deployment, userid)
    if ours == 400:
        return True if _made_up_code(client, made_up, userid) == 401 else None
    return False if ours == 401 else None


def _made_up_code(client: OAuthClient, deployment: Deployment, userid: str | None) -> int:
    """Return the status of the refusal of a code that AIRisk never gave: 400 only if it names the code, else 0."""
    try:
        client.run(exchange, deployment, Secret(secrets.token_urlsafe(32)), userid=userid)
    except AIRiskRefused as error:
        is_vague = error.status == 400 and "code" not in error.reason.lower()
        return 0 if is_vague or not is_airisks_own(error) else error.status
    except AIRiskError:
        pass
    return 0


def _correct(deployment: Deployment) -> str:
    if deployment.userid == _FROM_IDENTITY:
        site = f"{STAFF} correct the user's AIRisk identity in the admin."
    else:
        site = f"{SITE} correct what {deployment.userid} returns."
    return f"{site} {ADMINISTRATOR} else, look up whether there is such an ApplicationUser, and whether it is active."
