"""AIRisk's refusals: by status, in JSON or in plain text; and which of its words are safe to show."""

import json
import re
from typing import Any, Final

from ..exceptions import AIRiskError, AIRiskRefused, AIRiskUnavailable
from .messages import READABLE, OAuthResponse, Secret, http_date

#: In seconds.
MAX_RETRY_AFTER: Final = 60.0
#: How deep objects and lists may be nested in a JSON body; AIRisk's answers need two levels.
MAX_DEPTH: Final = 16

TRACE_ID: Final = r"[0-9A-Za-z:._|-]{1,128}"

# RFC 6749, section 4.1.2.1: the only error codes of a redirect that are repeated.
_ERROR_CODES = frozenset(
    {
        "access_denied",
        "invalid_request",
        "invalid_scope",
        "server_error",
        "temporarily_unavailable",
        "unauthorized_client",
        "unsupported_response_type",
    }
)


def refused_by_redirect(error: str) -> AIRiskRefused:
    """Return the refusal for a redirect's ``error`` parameter, which anybody may have written."""
    return AIRiskRefused(302, error if error in _ERROR_CODES else "")


def refusal(reply: OAuthResponse, *, secrets: tuple[str, ...]) -> AIRiskError:
    """Return the error for a response that is one.

    :param secrets: what was sent, and must not be repeated in the error.
    """
    if reply.status == 429 or reply.status >= 500:
        return AIRiskUnavailable(f"AIRisk answered with status {reply.status}.", retry_after=_retry_after(reply))
    reason, trace_id, status = _words(reply, secrets)
    return AIRiskRefused(status, reason, trace_id)


def _words(reply: OAuthResponse, secrets: tuple[str, ...]) -> tuple[str, str, int]:
    """Return a refusal's reason, its traceId and its status, which JSON may name where the HTTP status does not."""
    if "json" in reply.content_type:
        found = json_fields(reply, "title", "error", "error_description", "traceId", "status")
        title, error, description, trace_id, status = found or [None] * 5
        if reply.status >= 400 or type(status) is not int or not 400 <= status < 500:
            status = reply.status
        return refusal_reason(title, error, description, secrets), harmless(trace_id, TRACE_ID, secrets), status
    if reply.content_type.startswith("text/plain"):
        return harmless(reply.body.decode(errors="replace").strip(), READABLE, secrets), "", reply.status
    return "", "", reply.status


def refusal_reason(title: object, error: object, description: object, secrets: tuple[str, ...]) -> str:
    """Return the reason in JSON or an error redirect: problem details (RFC 9457), or RFC 6749, section 5.2."""
    name, more = harmless(title, READABLE, secrets), harmless(description, READABLE, secrets)
    name = name or harmless(error, READABLE, secrets)
    return ": ".join(filter(None, (name, more)))


def harmless(value: object, pattern: str, secrets: tuple[str, ...]) -> str:
    """Return a value if it matches this pattern and contains no secret, else an empty string."""
    if isinstance(value, str) and re.fullmatch(pattern, value) and not any(s and s in value for s in secrets):
        return str(value)
    return ""


def _retry_after(reply: OAuthResponse) -> float | None:
    """Read ``Retry-After`` (RFC 9110, section 10.2.3), seconds or a date, as seconds, capped at a minute."""
    if re.fullmatch(r"\d{1,9}", reply.retry_after, re.ASCII):
        return min(float(reply.retry_after), MAX_RETRY_AFTER)
    date = http_date(reply.retry_after)
    if date is None or reply.answered_at is None or date <= reply.answered_at:
        return None
    return min((date - reply.answered_at).total_seconds(), MAX_RETRY_AFTER)


def json_fields(reply: OAuthResponse, *names: str) -> list[object] | None:
    """Return these fields of the JSON object in the body, or ``None`` if it contains none.

    No error is raised here, where the whole body is a local variable that a traceback would show.
    """
    if _depth(reply.body) > MAX_DEPTH:
        return None
    try:
        answer = json.loads(reply.body, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    if not isinstance(answer, dict):
        return None
    return [_scalar(answer.get(name)) for name in names]


def _depth(body: bytes) -> int:
    """Return how deep lists and objects are nested; Python's own limit differs between versions."""
    depth = deepest = 0
    for mark in re.findall(rb'"(?:[^"\\]|\\.)*\\?(?:"|\Z)|[\[\]{}]', body, re.DOTALL):
        depth += (mark in b"[{") - (mark in b"]}")
        deepest = max(depth, deepest)
    return deepest


def _scalar(value: object) -> object:
    """Return a value whose ``repr`` is safe to show: a list or object, never valid here, might contain a token."""
    if isinstance(value, list | dict):
        return ()
    return Secret(value) if isinstance(value, str) else value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    answer = dict(pairs)
    if len(answer) != len(pairs):
        raise ValueError
    return answer


def _no_constant(_name: str) -> None:
    raise ValueError
