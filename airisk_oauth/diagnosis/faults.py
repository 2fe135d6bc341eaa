"""What ``check_airisk`` reports: findings, faults, and who can fix them."""

import math
from typing import Final, NamedTuple

from ..exceptions import AIRiskError, AIRiskRefused, AIRiskUnavailable
from ..oauth.authorization import STATE_MISSING
from ..oauth.deployment import Deployment

SITE: Final = "Site settings:"
SERVER: Final = "Server administrator:"
STAFF: Final = "Site staff:"
ADMINISTRATOR: Final = "AIRisk administrator:"
NETWORK: Final = "Network administrator:"
SUPPORT: Final = "AIRisk support:"

#: The default of ``USERID``: staff maintain who is who in the admin.
FROM_IDENTITY: Final = "airisk_oauth.userids.from_identity"

#: How many characters of a text from outside are shown.
MAX_TEXT: Final = 200


class Finding(NamedTuple):
    """The result of one step. A finding with a ``remedy`` is a fault; the remedy says what to do, and who can do it."""

    step: str
    message: str
    remedy: str = ""

    @classmethod
    def of(cls, step: str, message: str, remedy: str = "") -> "Finding":
        """Return a finding that is safe to print in a terminal: without control characters, wherever they came from."""
        return cls(step, printable(message), printable(remedy))


class Fault(Exception):
    """A step failed: ``message`` says what has been established, ``remedy`` what to do, and who can do it."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.message, self.remedy = message, remedy


def printable(text: str) -> str:
    """Replace characters that a terminal would obey, or could not show."""
    return "".join(each if each.isprintable() else "?" for each in text)


def plain(text: str) -> str:
    """Return a text from outside as at most 200 characters of printable ASCII."""
    shown = "".join(each if each.isascii() and each.isprintable() else "?" for each in text[:MAX_TEXT])
    return shown + ("..." if len(text) > MAX_TEXT else "")


def is_from_airisk(error: AIRiskRefused) -> bool:
    """Tell whether AIRisk itself refused, which gives reasons, and not a proxy in its place."""
    return bool(error.reason or error.trace_id)


def described(error: AIRiskError) -> str:
    """Return an error as a sentence, with everything that AIRisk's support or a retry needs."""
    if isinstance(error, AIRiskRefused):
        return f"AIRisk refused: {answer_of(error)}."
    return f"{error}{requested_wait(error)}"


def answer_of(error: AIRiskRefused) -> str:
    """Return AIRisk's reason, the HTTP status and the trace id."""
    details = f"HTTP {error.status}" + (f", traceId {error.trace_id}" if error.trace_id else "")
    return f"{error.reason} ({details})" if error.reason else details


def requested_wait(error: AIRiskError) -> str:
    """Return a sentence with the time that AIRisk asked to wait (``Retry-After``), or an empty string."""
    seconds = error.retry_after if isinstance(error, AIRiskUnavailable) else None
    # A longer time than a minute is read as a minute.
    return f" AIRisk asks clients to wait at least {math.ceil(seconds)} s (Retry-After)." if seconds else ""


def no_usable_answer(error: AIRiskError, deployment: Deployment, seconds: float) -> Fault:
    """Return the fault for a call of an OAuth endpoint that was not refused, but got no usable answer.

    :param seconds: how long the call took.
    """
    if isinstance(error, AIRiskUnavailable):
        limit = deployment.timeout[1]
        # The host was reached a moment ago; whether it now connects slowly or is gone cannot be known.
        if seconds >= 0.95 * limit and "Connect" not in str(error):
            return Fault(
                f"AIRisk is slow: it did not answer within {limit:g} s.",
                f"{SUPPORT} Ask them why, or try again later. {SITE} Raise TIMEOUT if AIRisk always takes that long.",
            )
        return Fault(described(error), f"{SUPPORT} Ask them why, or try again later.")
    if str(error) == STATE_MISSING:
        return Fault(
            f"{error} A callback without a state could come from anyone, so this package does not accept it: nobody "
            "can connect, and no token is renewed.",
            f"{SUPPORT} Ask them to make the deployment return state unmodified, as AIRisk documents it; "
            "older deployments may not.",
        )
    return Fault(
        str(error),
        f"{NETWORK} If a proxy answers in AIRisk's place, let this server through to AIRisk. "
        f"{SUPPORT} Otherwise, ask them why.",
    )


def refused(error: AIRiskRefused, client_id: str) -> Fault:
    """Return the fault for a refusal whose cause is unknown."""
    who = f"the APIUser {client_id}"
    if is_from_airisk(error):
        return Fault(described(error), f"{ADMINISTRATOR} Find out why {who} is refused.")
    return Fault(
        f"{described(error)} The answer gives no reason; AIRisk's own refusals do.",
        f"{NETWORK} If a proxy answers in AIRisk's place, let this server through to AIRisk. "
        f"{ADMINISTRATOR} Otherwise, find out why {who} is refused.",
    )
