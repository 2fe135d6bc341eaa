"""What both transports have in common, and how a coroutine is run without an event loop."""

import logging
import time
from collections.abc import Coroutine, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Protocol, TypeVar

from ..events import log
from ..exceptions import AIRiskInvalidResponse, AIRiskUnavailable
from .messages import OAuthRequest, OAuthResponse

if TYPE_CHECKING:
    from .deployment import Deployment

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

logger = logging.getLogger("airisk_oauth.transport")

USER_AGENT: Final = "django-airisk-oauth"
HEADERS: Final = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": USER_AGENT}


class Send(Protocol):
    """Sends a request to an OAuth endpoint and returns the response.

    :raises ConnectionLost: a reused connection was closed before a byte of an answer came.
    :raises AIRiskUnavailable: no answer came.
    """

    async def __call__(self, request: OAuthRequest, /) -> OAuthResponse: ...


def run(rule: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine that never suspends to its end, and return its result. Errors: the coroutine's own.

    No event loop is involved: what it awaits has to block, as :class:`~airisk_oauth.tokens.waiting.Blocking` does.
    """
    try:
        rule.send(None)
    except StopIteration as end:
        result: Result = end.value
        return result
    rule.close()
    raise RuntimeError("This coroutine waits for an event loop.")


def response_of(status: int, headers: Mapping[str, str], body: bytes | None, *, now: datetime) -> OAuthResponse:
    """Return a response as the flow reads it.

    :param body: ``None`` for one of more than 64 KiB.
    :param now: when it came (aware).
    :raises AIRiskInvalidResponse: the body is too long.
    """
    if body is None:
        raise AIRiskInvalidResponse("AIRisk's answer is longer than any token.")
    return OAuthResponse.of(status, headers, body, now=now)


def log_call(deployment: "Deployment", request: OAuthRequest, began: float, outcome: int | str) -> None:
    """Log a call of an OAuth endpoint.

    :param began: when it began, on the monotonic clock.
    :param outcome: the HTTP status, or the name of the exception's class where no answer came.
    """
    failed = isinstance(outcome, str)
    what = "did not answer (%(error)s)" if failed else "answered with status %(airisk_status)s"
    ended: dict[str, Any] = {"error" if failed else "airisk_status": outcome}
    log(
        logger,
        logging.DEBUG,
        "oauth.called",
        f"AIRisk's %(endpoint)s endpoint {what} after %(duration).3f s",
        deployment=deployment.alias,
        endpoint="authorization" if request.method == "GET" else "token",
        duration=round(time.monotonic() - began, 3),
        **ended,
    )


def unanswered(cause: str) -> AIRiskUnavailable:
    """Return the error for a call without an answer.

    :param cause: see :func:`~airisk_oauth.wire.failures.described`.
    """
    return AIRiskUnavailable(f"AIRisk did not answer ({cause}).")
