"""What both transports, ``requests`` and ``httpx2``, have in common."""

import logging
import time
from typing import TYPE_CHECKING, Any, Final

from ..events import log
from ..exceptions import AIRiskUnavailable

if TYPE_CHECKING:
    from .deployment import Deployment
    from .messages import OAuthRequest

logger = logging.getLogger("airisk_oauth.transport")

USER_AGENT: Final = "django-airisk-oauth"
HEADERS: Final = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": USER_AGENT}


def log_call(deployment: "Deployment", call: "OAuthRequest", began: float, outcome: int | str) -> None:
    """Log how a call ended that began at this monotonic second: with a status, or by an exception of this name."""
    failed = isinstance(outcome, str)
    what = "did not answer (%(error)s)" if failed else "answered with status %(airisk_status)s"
    ended: dict[str, Any] = {"error" if failed else "airisk_status": outcome}
    log(
        logger,
        logging.DEBUG,
        "oauth.called",
        f"AIRisk's %(endpoint)s endpoint {what} after %(duration).3f s",
        deployment=deployment.alias,
        endpoint="authorization" if call.method == "GET" else "token",
        duration=round(time.monotonic() - began, 3),
        **ended,
    )


def unanswered(cause: str) -> AIRiskUnavailable:
    """Return the error for a call that got no answer, for this reason: see :func:`described`."""
    return AIRiskUnavailable(f"AIRisk did not answer ({cause}).")
