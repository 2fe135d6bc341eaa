"""Why AIRisk refuses. A cause is named only if AIRisk names it, or if other requests rule out all other causes."""

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
from .faults import ADMINISTRATOR, FROM_IDENTITY, SITE, STAFF, Fault, answer_of, described, is_from_airisk, refused

#: Statuses of an address without an endpoint.
_NO_ENDPOINT: Final = (404, 405)


def authorization_refused(
    deployment: Deployment, userid: str | None, error: AIRiskRefused, *, is_our_callback: bool
) -> Fault:
    """Return the fault for a refusal by the authorization endpoint.

    :param is_our_callback: whether ``REDIRECT_URI`` is this site's callback.
    """
    answer = f"Its answer: {answer_of(error)}."
    with OAuthClient(deployment) as client:
        if userid is not None and _authorization_error(client, deployment, None) is None:
            return Fault(
                f"AIRisk refuses the userid {userid}, but not the same request without a userid. {answer}",
                _correct_userid(deployment),
            )
        if error.status in _NO_ENDPOINT:
            return Fault(
                f"There is no authorization endpoint at {deployment.authorize_url}: {answer_of(error)}.",
                f"{SITE} Correct BASE_URL or AUTHORIZE_PATH.",
            )
        option = _option_at_fault(client, deployment, userid, error) if is_from_airisk(error) else ""
    if option == "USERID":
        return Fault(f"AIRisk refuses the userid {userid}. {answer}", _correct_userid(deployment))
    if option == "CLIENT_ID":
        return Fault(
            f"AIRisk does not know CLIENT_ID {deployment.client_id}. {answer}",
            f"{SITE} Set CLIENT_ID to the client_id of an APIUser of this deployment.",
        )
    if option == "REDIRECT_URI":
        return _not_registered(deployment, answer, is_our_callback=is_our_callback)
    if option:
        return Fault(
            f"AIRisk does not know CLIENT_ID {deployment.client_id}, or does not know REDIRECT_URI "
            f"{deployment.redirect_uri}: it refuses both in the same words. {answer}",
            f"{ADMINISTRATOR} Compare both with the APIUser.",
        )
    return refused(error, deployment.client_id)


def _not_registered(deployment: Deployment, answer: str, *, is_our_callback: bool) -> Fault:
    message = f"AIRisk does not know REDIRECT_URI {deployment.redirect_uri}. {answer}"
    if not is_our_callback:
        return Fault(message, f"{SITE} First correct REDIRECT_URI, which is not this site's callback either.")
    return Fault(
        message,
        f"{ADMINISTRATOR} If that is this site's address, add exactly this to the redirect URIs of the APIUser "
        f"{deployment.client_id}. {SITE} If it is misspelled, correct it.",
    )


def token_refused(deployment: Deployment, userid: str | None, error: AIRiskRefused) -> Fault:
    """Return the fault for a refusal by the token endpoint of a code that AIRisk has just issued."""
    answer = f"Its answer: {answer_of(error)}."
    if error.status in _NO_ENDPOINT:
        return Fault(
            f"There is no token endpoint at {deployment.token_url}: {answer_of(error)}.",
            f"{SITE} Correct BASE_URL or TOKEN_PATH.",
        )
    if not is_from_airisk(error):
        return refused(error, deployment.client_id)
    with OAuthClient(deployment) as client:
        if userid is not None and _can_obtain(client, deployment):
            return Fault(
                f"AIRisk refuses to issue a token for the userid {userid}, but issues one without a userid. {answer}",
                _correct_userid(deployment),
            )
        # CLIENT_ID is known: AIRisk issued a code for it.
        is_known = error.status != 401 or _is_known(client, deployment, userid)
        if "client_secret" in error.reason:
            is_known = False
    correct = f"{SITE} Set CLIENT_SECRET to the client_secret of the APIUser {deployment.client_id}."
    if is_known is False:
        return Fault(f"AIRisk does not accept CLIENT_SECRET. {answer}", correct)
    if is_known is None:
        return Fault(
            f"{described(error)} AIRisk documents this status for a client that it does not know.",
            f"{correct} {ADMINISTRATOR} If that is what it is, find out why this client is refused.",
        )
    return refused(error, deployment.client_id)


def request_authorization(client: OAuthClient, deployment: Deployment, userid: str | None) -> OAuthResponse | None:
    """Return the authorization endpoint's answer, unread, or ``None`` if there is none."""

    async def flow(send: Send) -> OAuthResponse:
        return await send(OAuthRequest("GET", authorization_url(deployment, state=new_state(), userid=userid)))

    try:
        return client.run(flow)
    except AIRiskError:
        return None


def _option_at_fault(client: OAuthClient, deployment: Deployment, userid: str | None, error: AIRiskRefused) -> str:
    """Return ``CLIENT_ID``, ``REDIRECT_URI`` or ``USERID``, ``EITHER`` for one of the first two, or an empty string."""
    options = ["CLIENT_ID", "REDIRECT_URI"] if userid is None else ["CLIENT_ID", "REDIRECT_URI", "USERID"]
    for option in options:
        if option.lower() in error.reason.lower():
            return option
    reply = request_authorization(client, deployment, userid)
    if reply is None or (reply.location or "").partition("?")[0] == deployment.redirect_uri:
        # AIRisk sends refusals there only if it knows both the client and the address.
        return ""
    unregistered = urljoin(deployment.redirect_uri, f"/{uuid.uuid4()}/")
    other_client = _authorization_error(client, replace(deployment, client_id=str(uuid.uuid4())), userid)
    other_address = _authorization_error(client, replace(deployment, redirect_uri=unregistered), userid)
    suspects = [
        option
        for option, other in (("CLIENT_ID", other_client), ("REDIRECT_URI", other_address))
        if _is_same(error, other)
    ]
    if not suspects and userid is not None:
        # A client that is refused for every user is refused without a userid in the same words.
        without, other_user = (_authorization_error(client, deployment, each) for each in (None, str(uuid.uuid4())))
        return "USERID" if _is_same(error, other_user) and not _is_same(error, without) else ""
    if len(suspects) < 2:
        return "".join(suspects)
    # An unknown client is refused with any address. Whether ours is known, the token endpoint may show.
    return {True: "REDIRECT_URI", False: "CLIENT_ID", None: "EITHER"}[_is_known(client, deployment, userid)]


def _is_same(error: AIRiskRefused, other: AIRiskError | None) -> bool:
    return isinstance(other, AIRiskRefused) and (other.status, other.reason) == (error.status, error.reason)


def _authorization_error(client: OAuthClient, deployment: Deployment, userid: str | None) -> AIRiskError | None:
    """Return the error of a request for a code, or ``None`` if AIRisk issued one, or showed a page."""
    try:
        client.run(authorize, deployment, state=new_state(), userid=userid)
    except PageShown:
        return None
    except AIRiskError as error:
        return error
    return None


def _can_obtain(client: OAuthClient, deployment: Deployment) -> bool:
    """Tell whether AIRisk issues a token for the application."""
    try:
        client.run(obtain_silently, deployment, None)
    except AIRiskError:
        return False
    return True


def _is_known(client: OAuthClient, deployment: Deployment, userid: str | None) -> bool | None:
    """Tell whether the token endpoint knows this client and its secret; ``None`` if that cannot be found out.

    AIRisk has to refuse a code that it never issued. It answers 401 if it checks the client first and does not know
    it, and 400 if it knows the client, or checks the code first. A made-up client shows which of these applies.
    """
    made_up = replace(deployment, client_id=str(uuid.uuid4()), client_secret=Secret(secrets.token_urlsafe(32)))
    ours = _status_for_made_up_code(client, deployment, userid)
    if ours == 400:
        return True if _status_for_made_up_code(client, made_up, userid) == 401 else None
    return False if ours == 401 else None


def _status_for_made_up_code(client: OAuthClient, deployment: Deployment, userid: str | None) -> int:
    """Return the status of AIRisk's refusal of a code that it never issued: 400 only if it names the code, else 0."""
    try:
        client.run(exchange, deployment, Secret(secrets.token_urlsafe(32)), userid=userid)
    except AIRiskRefused as error:
        is_vague = error.status == 400 and "code" not in error.reason.lower()
        return 0 if is_vague or not is_from_airisk(error) else error.status
    except AIRiskError:
        pass
    return 0


def _correct_userid(deployment: Deployment) -> str:
    if deployment.userid == FROM_IDENTITY:
        remedy = f"{STAFF} Correct the user's AIRisk identity in the admin."
    else:
        remedy = f"{SITE} Correct what {deployment.userid} returns."
    return f"{remedy} {ADMINISTRATOR} Otherwise, check that there is such an ApplicationUser, and that it is active."
