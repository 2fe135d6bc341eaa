"""What the doctor tells: findings, faults, and who can fix them."""

from typing import Any, Final, NamedTuple

from ..exceptions import AIRiskError, AIRiskRefused, AIRiskUnavailable
from ..oauth.authorization import STATE_MISSING

SITE: Final = "In this site's settings:"
SERVER: Final = "Whoever runs this server:"
STAFF: Final = "Staff of this site:"
ADMINISTRATOR: Final = "An AIRisk administrator:"
NETWORK: Final = "Whoever runs this server's network:"
SUPPORT: Final = "AIRisk's support:"

#: So much of a foreign text is shown.
MAX_TEXT: Final = 200


class Finding(NamedTuple):
    """What one step showed. A fault has a ``remedy``: what to do, and who can do it."""

    step: str
    said: str
    remedy: str = ""

    @classmethod
    def of(cls, step: str, said: str, remedy: str = "") -> "Finding":
        """Make one that a terminal can show: no control characters, whoever wrote them."""
        return cls(step, printable(said), printable(remedy))


class Fault(Exception):
    """A step failed for a reason that is established."""

    def __init__(self, said: str, remedy: str) -> None:
        super().__init__(said)
        self.said, self.remedy = said, remedy


def printable(text: str) -> str:
    """Replace what a terminal would obey, or could not show."""
    return "".join(each if each.isprintable() else "?" for each in text)


def plain(text: str) -> str:
    """Return foreign text as at most 200 characters of printable ASCII."""
    shown = "".join(each if each.isascii() and each.isprintable() else "?" for each in text[:MAX_TEXT])
    return shown + ("..." if len(text) > MAX_TEXT else "")


def is_airisks_own(error: AIRiskRefused) -> bool:
    """Tell AIRisk, which gives its reasons, from a proxy in its place."""
    return bool(error.reason or error.trace_id)


def unusable(error: AIRiskError, deployment: Any, seconds: float) -> Fault:
    """Return the fault for a call of an OAuth endpoint that brought nothing and was not refused.

    :param seconds: how long it took.
    """
    if isinstance(error, AIRiskUnavailable):
        limit = deployment.timeout[1]
        # The host was reached a moment ago; whether it is slow to connect now, or gone, nobody knows.
        if seconds >= 0.95 * limit and "Connect" not in str(error):
            return Fault(
                f"AIRisk is slow: it did not answer within {limit:g} s.",
                f"{SUPPORT} ask why, or try later. {SITE} raise TIMEOUT, if AIRisk always takes that long.",
            )
        return Fault(str(error), f"{SUPPORT} ask why, or try later.")
    if str(error) == STATE_MISSING:
        return Fault(
            f"{error} A callback without it could come from anybody, so this package accepts none: nobody can connect, "
            "and no token is renewed.",
            f"{SUPPORT} have the deployment return state unmodified, as AIRisk documents it; old ones may not.",
        )
    return Fault(
        str(error),
        f"{NETWORK} if a proxy answers in AIRisk's place, let this server through to AIRisk. {SUPPORT} else, ask why.",
    )


def refused(error: AIRiskRefused, client_id: str) -> Fault:
    """Return the fault for a refusal whose cause is not known."""
    who = f"the APIUser {client_id}"
    if is_airisks_own(error):
        return Fault(f"{error}.", f"{ADMINISTRATOR} look up why {who} is refused.")
    return Fault(
        f"{error}, without a reason, which AIRisk gives.",
        f"{NETWORK} if a proxy answers in AIRisk's place, let this server through. "
        f"{ADMINISTRATOR} else, look up why {who} is refused.",
    )
