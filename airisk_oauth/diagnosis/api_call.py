"""A call of AIRisk's API with the token that was issued."""

import json
import time
from typing import Final

from django.utils import timezone

from ..oauth.calls import USER_AGENT
from ..oauth.deployment import Deployment
from ..oauth.messages import OAuthResponse, Secret, TokenGrant
from ..oauth.refusals import refusal
from .faults import ADMINISTRATOR, NETWORK, SUPPORT, Fault, requested_wait
from .look import Look, look

#: Known from AIRisk's public client only.
PATH: Final = "/api/Chat/ListAgents"
_CALL: Final = f"GET {PATH}"


def check_call(deployment: Deployment, grant: TokenGrant, userid: str | None) -> str:
    """List a user's agents with this token.

    :param userid: whose token it is; ``None``: the application's.
    :raises Fault: AIRisk did not answer, or refused.
    """
    headers = {
        "Accept": "application/json",
        "Authorization": Secret(f"Bearer {grant.access_token}"),
        "User-Agent": USER_AGENT,
    }
    timeout, began = deployment.api_timeout, time.monotonic()
    try:
        answer = look(deployment, deployment.base_url + PATH, timeout, headers, with_body=True)
    except OSError as error:
        failure = f"{_CALL} got no answer ({type(error).__name__})."
    else:
        return _judge(answer, userid)
    if time.monotonic() - began >= 0.95 * timeout[1]:
        failure = f"{_CALL} got no answer within {timeout[1]:g} s: AIRisk is slow, or API_TIMEOUT is too short."
    raise Fault(failure, f"{SUPPORT} Ask them why, or try again later.")


def _judge(answer: Look, userid: str | None) -> str:
    status, result = answer.status, f"{_CALL} was answered with status {answer.status}"
    if status == 429 or status >= 500:
        raise Fault(f"{result}.{_requested_wait(answer)}", f"{SUPPORT} Ask them why, or try again later.")
    if "html" in answer.headers.get("Content-Type", "").lower():
        raise Fault(f"{result} and a page.", f"{NETWORK} Let this server through to AIRisk.")
    if userid is None:
        # It is a user's call; what the application may call is not documented.
        return f"{result}; AIRisk does not document which calls the application's own token can make"
    if status == 401:
        raise Fault(f"{result}: AIRisk refuses the token that it has just issued.", f"{SUPPORT} Ask them why.")
    if status == 403:
        raise Fault(
            f"{result}: {userid} has no permission for this call.",
            f"{ADMINISTRATOR} Check this user's agents, role, chat settings and company.",
        )
    if status != 200:
        raise Fault(f"{result}.", f"{SUPPORT} Ask them whether this deployment has this call.")
    return f"{result}{_agents(answer.body, userid)}"


def _requested_wait(answer: Look) -> str:
    response = OAuthResponse.of(answer.status, answer.headers, b"", now=timezone.now())
    return requested_wait(refusal(response, secrets=()))


def _agents(body: bytes | None, userid: str) -> str:
    """Say how many agents are listed, or nothing if the body is no list."""
    try:
        agents = json.loads(body or b"-")
    except (ValueError, RecursionError):
        agents = None
    if not isinstance(agents, list):
        return ""
    if not agents:
        return f": {userid} has no agents to chat with; an AIRisk administrator can assign some"
    return f": {userid} has {len(agents)} agent{'s' if len(agents) > 1 else ''}"
