"""AIRisk's OAuth 2 on paper: what to send, and how to read what comes back.

Pure functions: no Django, no I/O, no clock. Every reader returns a valid value or raises an ``AIRiskError`` whose
message holds nothing of what was read, so that an error can be shown and logged as it is.
"""

import json
import re
from collections.abc import Generator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple, Self, TypeVar
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

from .exceptions import AIRiskError, AIRiskInvalidResponse, AIRiskRefused, AIRiskUnavailable

Result = TypeVar("Result")

MAX_BODY: Final = 64 * 1024
MAX_QUERY: Final = 16 * 1024
MAX_TOKEN: Final = 16 * 1024
MAX_LIFE: Final = timedelta(days=3653)
MAX_RETRY_AFTER: Final = 60.0
#: Objects and lists within one another in a body that is read as JSON; AIRisk's answers need two.
MAX_DEPTH: Final = 16

#: What is said of a code that comes without the state that was sent: the doctor knows it again by that.
STATE_MISSING: Final = "AIRisk's redirect carries no state, though one was sent."

# The parameters that are ours to set; a site's extra ones may not replace them.
AUTHORIZE_PARAMETERS: Final = frozenset({"client_id", "redirect_uri", "state", "userid"})
TOKEN_PARAMETERS: Final = frozenset({"code", "client_id", "client_secret", "redirect_uri", "userid"})

# Patterns are strings, here and elsewhere: re compiles and keeps each when it is first used, not when a site starts.
_VSCHAR: Final = r"[\x21-\x7e]+"
_B64TOKEN: Final = r"[A-Za-z0-9._~+/-]+=*"
_READABLE: Final = r"[\x20-\x7e]{1,120}"
_TRACE_ID: Final = r"[0-9A-Za-z:._|-]{1,128}"
# RFC 3339, with up to .NET's seven fractional digits. The offset may be missing: .NET writes none for a time whose kind
# it does not know. Python itself reads more of ISO 8601: from 3.14 on 24:00, too.
_RFC3339: Final = r"(?a)\d{4}-\d\d-\d\d[Tt](?:[01]\d|2[0-3]):\d\d:\d\d(?:\.\d{1,7})?(?:[Zz]|[+-]\d\d:\d\d)?"
# RFC 6749, section 4.1.2.1: the only words of an error redirect that are worth repeating.
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


class Secret(str):
    """A string that neither its ``repr`` nor a pickle shows: a traceback or a crash report stays harmless."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'[secret]'"

    def __reduce_ex__(self, _protocol: object) -> tuple[type[str], tuple[str]]:
        # What is pickled leaves the process: for another worker, a cache, a recorded cassette.
        return str, ("[secret]",)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _memo: object) -> Self:
        return self


class TokenGrant(NamedTuple):
    """A token as AIRisk granted it.

    :ivar access_token: opaque; see :func:`is_access_token`.
    :ivar expires_at: when it ends (aware, UTC), or ``None`` where AIRisk named no end.
    :ivar origin: scheme, host and port of who issued it, or an empty string.
    """

    access_token: Secret
    expires_at: datetime | None
    origin: str = ""


class Call(NamedTuple):
    """A request to one of the two OAuth endpoints."""

    method: str
    url: str
    form: Mapping[str, str] | None = None

    def __repr__(self) -> str:
        return f"<Call {self.method}>"


class Reply(NamedTuple):
    """The parts of an HTTP response that the protocol gives a meaning to."""

    status: int
    body: bytes = b""
    location: str | None = None
    content_type: str = ""
    retry_after: str = ""
    answered_at: datetime | None = None

    def __repr__(self) -> str:
        return f"<Reply {self.status}>"

    @classmethod
    def of(cls, status: int, headers: Mapping[str, str], body: bytes | None, *, now: datetime | None = None) -> Self:
        """Take from a response what counts; ``headers`` has to find names whatever their case.

        :param body: ``None`` for one of more than 64 KiB.
        :param now: when it came (aware). AIRisk's own ``Date`` goes first: ``Retry-After`` is by the same clock.
        :raises AIRiskInvalidResponse: the body is longer than any token.
        """
        if body is None:
            raise AIRiskInvalidResponse("AIRisk's answer is longer than any token.")
        location, retry_after = headers.get("location"), headers.get("retry-after", "")
        answered_at = _http_date(headers.get("date", "")) or now
        return cls(status, body, location, headers.get("content-type", "").lower(), retry_after, answered_at)


#: What a flow asks to send, call after call, each resumed with its reply; and what it comes to.
Calls = Generator[Call, Reply, Result]


class Callback(NamedTuple):
    """What came back to the redirect URI.

    :ivar answer: the code, or AIRisk's refusal.
    :ivar iss: who says so (RFC 9207); AIRisk itself sends none.
    """

    state: Secret
    answer: Secret | AIRiskRefused
    iss: str | None = None


class MalformedCallback(Exception):
    """A query that AIRisk cannot have sent."""


class ConnectionLost(Exception):
    """A connection that was used again died before a byte of an answer. Only the flow itself sees this one."""


class PageShown(Exception):
    """The authorization endpoint wants a person: it showed a page or led elsewhere."""


def authorization_url(
    endpoint: str,
    *,
    client_id: str,
    redirect_uri: str,
    state: str,
    userid: str | None,
    extra: Mapping[str, str],
) -> Secret:
    """Return the URL that starts a flow (RFC 6749, section 4.1.1; AIRisk, "authorization endpoint")."""
    query = {"client_id": client_id, "redirect_uri": redirect_uri, "state": state}
    if userid is not None:
        query["userid"] = userid
    return Secret(f"{endpoint}?{urlencode({**extra, **query})}")


def token_form(
    *,
    code: str,
    client_id: str,
    client_secret: str,
    redirect_uri: str,
    userid: str | None,
    extra: Mapping[str, str],
) -> dict[str, str]:
    """Return the form that trades a code for a token (RFC 6749, section 4.1.3; AIRisk, "token endpoint")."""
    form = {
        "code": Secret(code),
        "client_id": client_id,
        "client_secret": Secret(client_secret),
        "redirect_uri": redirect_uri,
    }
    if userid is not None:
        form["userid"] = userid
    return {**extra, **form}


def origin_of(url: str) -> tuple[str, str, int] | None:
    """Return scheme, host and port of an absolute http(s) URL, or ``None`` for anything else."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        return None
    return parts.scheme, parts.hostname, port or {"http": 80, "https": 443}[parts.scheme]


def read_callback(query: str) -> Callback:
    """Read the query that AIRisk sent the browser back with (RFC 6749, sections 4.1.2 and 4.1.2.1; RFC 9207).

    :raises MalformedCallback: no state, neither or both of code and error, a repeated parameter, bytes that no
        URL has, or more than 16 KiB.
    """
    if len(query) > MAX_QUERY or not query.isascii():
        raise MalformedCallback
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=50)
    except ValueError:
        raise MalformedCallback from None
    values = dict(pairs)
    if len(values) != len(pairs):
        raise MalformedCallback
    state, code, error = values.get("state"), values.get("code"), values.get("error")
    if not state or (code is None) == (error is None):
        raise MalformedCallback
    if error is not None:
        return Callback(Secret(state), _refused_by_redirect(error), values.get("iss"))
    if not re.fullmatch(_VSCHAR, code or ""):
        raise MalformedCallback
    return Callback(Secret(state), Secret(code), values.get("iss"))


def _refused_by_redirect(error: str) -> AIRiskRefused:
    return AIRiskRefused(302, error if error in _ERROR_CODES else "")


def read_authorization(reply: Reply, *, endpoint: str, redirect_uri: str, state: str) -> Secret:
    """Return the code from the authorization endpoint's answer to our own server (AIRisk: "302 at once").

    :param endpoint: the URL of the authorization endpoint.
    :raises PageShown: a person has to go through what AIRisk shows.
    :raises AIRiskRefused: AIRisk said no: by status, by error parameters, or with JSON.
    :raises AIRiskUnavailable: 5xx or 429.
    :raises AIRiskInvalidResponse: a redirect to us with another state or none, or one that cannot be read.
    """
    if reply.status >= 400:
        raise _refusal(reply, secrets=(state,))
    check_not_refused(reply, secrets=(state,))
    if reply.status < 300 or reply.location is None:
        raise PageShown
    target, _, query = map(Secret, reply.location.partition("?"))
    if target != redirect_uri:
        if _is_within(endpoint, reply.location):
            _check_error(query, secrets=(state,))
        raise PageShown
    callback = _callback_for(query)
    if callback.state != state:
        raise AIRiskInvalidResponse("AIRisk's redirect carries another state than the one that was sent.")
    if isinstance(callback.answer, AIRiskRefused):
        raise callback.answer
    return callback.answer


def _callback_for(query: str) -> Callback:
    try:
        return read_callback(query)
    except MalformedCallback:
        names = _query_of(query)
    if "state" not in names and ("code" in names) != ("error" in names):
        if "code" in names:
            raise AIRiskInvalidResponse(STATE_MISSING)
        # It answers our own request, so that it can be believed without a state, as no code can.
        raise _refused_by_redirect(names["error"])
    raise AIRiskInvalidResponse("AIRisk's redirect cannot be read.")


def own_page(reply: Reply, *, endpoint: str, redirect_uri: str) -> Secret | None:
    """Return where on AIRisk itself the authorization endpoint leads, if only a look there can tell what it means.

    That may be a page for a person, or JSON: AIRisk "may redirect to a json response". ``None`` for every answer that
    says enough by itself, and for one with a code in its address, which belongs nowhere else.
    """
    location = reply.location
    if not 300 <= reply.status < 400 or not location or location.partition("?")[0] == redirect_uri:
        return None
    if not _is_within(endpoint, location):
        return None
    parts, own = urlsplit(urljoin(endpoint, location)), urlsplit(endpoint)
    names = _query_of(parts.query)
    if names.get("error") or "code" in names or parts.path == own.path:
        return None
    # Of the address nothing counts but path and query, and of those only what a URL can hold.
    address = urlunsplit((own.scheme, own.netloc, parts.path, parts.query, ""))
    return Secret(address) if len(address) <= MAX_QUERY and re.fullmatch(_VSCHAR, address) else None


def check_not_refused(reply: Reply, *, secrets: tuple[str, ...]) -> None:
    """Let a page for a person pass, where AIRisk's authorization endpoint answers or has led to.

    :raises AIRiskRefused: JSON, whatever its status, or an error status in plain text.
    :raises AIRiskUnavailable: 5xx or 429.
    """
    is_error = reply.status >= 400
    in_words = "json" in reply.content_type or (is_error and reply.content_type.startswith("text/plain"))
    is_redirect = 300 <= reply.status < 400 and reply.location is not None
    if reply.status == 429 or reply.status >= 500 or (in_words and not is_redirect):
        raise _refusal(reply, secrets=secrets)


def _is_within(endpoint: str, location: str) -> bool:
    try:
        return origin_of(urljoin(endpoint, location)) == origin_of(endpoint)
    except ValueError:
        return False


def _query_of(query: str) -> dict[str, str]:
    """Return the parameters of a query that have a value; none where it is too long, or has too many."""
    try:
        pairs = parse_qsl(query, max_num_fields=50) if len(query) <= MAX_QUERY else []
    except ValueError:
        return {}
    return {name: Secret(value) for name, value in pairs}


def _check_error(query: str, *, secrets: tuple[str, ...]) -> None:
    """Raise the refusal that a query's error parameters are, if there are any."""
    values = _query_of(query)
    if values.get("error"):
        reason = _reason(None, values["error"], values.get("error_description"), secrets)
        raise AIRiskRefused(302, reason, _harmless(values.get("traceId"), _TRACE_ID, secrets))


def read_token(reply: Reply, *, now: datetime, secrets: tuple[str, ...] = ()) -> TokenGrant:
    """Return the token from the token endpoint's answer (RFC 6749, section 5; AIRisk, "token endpoint").

    :param now: the moment (aware) that ``expires_in`` counts from.
    :param secrets: what was sent and must not come back in an error's words.
    :raises AIRiskRefused: 4xx other than 429.
    :raises AIRiskUnavailable: 5xx or 429.
    :raises AIRiskInvalidResponse: anything else that is not a token with a believable end.
    """
    if reply.status >= 400:
        raise _refusal(reply, secrets=secrets)
    if reply.status != 200:
        raise AIRiskInvalidResponse(f"AIRisk's token endpoint answered with status {reply.status}.")
    fields = _fields(reply, "access_token", "expiration", "expires_in")
    if fields is None:
        raise AIRiskInvalidResponse("AIRisk's answer is not the JSON that its documentation shows.")
    token, expiration, expires_in = fields
    if not isinstance(token, Secret) or not is_access_token(token):
        raise AIRiskInvalidResponse("AIRisk's answer holds no usable access_token.")
    return TokenGrant(token, _end(expiration, expires_in, now))


def is_access_token(value: object) -> bool:
    """Tell whether a value can be sent as a bearer: a ``b64token`` (RFC 6750, section 2.1) of at most 16 KiB."""
    return isinstance(value, str) and len(value) <= MAX_TOKEN and bool(re.fullmatch(_B64TOKEN, value))


def _end(expiration: object, expires_in: object, now: datetime) -> datetime | None:
    try:
        if expiration is not None:
            end = _moment(expiration)
        elif expires_in is not None:
            end = now + timedelta(seconds=_seconds(expires_in))
        else:
            return None
    except (ValueError, OverflowError):
        raise AIRiskInvalidResponse("AIRisk's answer names an end of the token that cannot be read.") from None
    if not now < end <= now + MAX_LIFE:
        raise AIRiskInvalidResponse("AIRisk's answer names an end of the token that is past or too far away.")
    return end


def _moment(value: object) -> datetime:
    if not isinstance(value, str) or not re.fullmatch(_RFC3339, value):
        raise ValueError
    moment = datetime.fromisoformat(value.upper())
    # AIRisk documents a "UTC-formatted datetime"; astimezone() alone would take this server's own zone.
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _seconds(value: object) -> float:
    """Read ``expires_in``: RFC 6749 says a number; a string of digits is common and unmistakable."""
    if isinstance(value, str) and re.fullmatch(r"\d{1,12}", value, re.ASCII):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError  # noqa: TRY004 - a wrong value of the wire, as every other one
    return float(value)


def _refusal(reply: Reply, *, secrets: tuple[str, ...]) -> AIRiskError:
    """Turn an error status into the error that says what to do about it."""
    if reply.status == 429 or reply.status >= 500:
        return AIRiskUnavailable(f"AIRisk answered with status {reply.status}.", retry_after=_retry_after(reply))
    reason, trace_id, status = _words(reply, secrets)
    return AIRiskRefused(status, reason, trace_id)


def _words(reply: Reply, secrets: tuple[str, ...]) -> tuple[str, str, int]:
    """Return a refusal's reason, its traceId, and its status: JSON can name one that its HTTP status does not."""
    if "json" in reply.content_type:
        found = _fields(reply, "title", "error", "error_description", "traceId", "status")
        title, error, description, trace_id, status = found or [None] * 5
        if reply.status >= 400 or type(status) is not int or not 400 <= status < 500:
            status = reply.status
        return _reason(title, error, description, secrets), _harmless(trace_id, _TRACE_ID, secrets), status
    if reply.content_type.startswith("text/plain"):
        return _harmless(reply.body.decode(errors="replace").strip(), _READABLE, secrets), "", reply.status
    return "", "", reply.status


def _reason(title: object, error: object, description: object, secrets: tuple[str, ...]) -> str:
    """Return what JSON or an error redirect gives for a reason: problem details (RFC 9457) or RFC 6749, section 5.2."""
    name, more = _harmless(title, _READABLE, secrets), _harmless(description, _READABLE, secrets)
    name = name or _harmless(error, _READABLE, secrets)
    return ": ".join(filter(None, (name, more)))


def _harmless(value: object, pattern: str, secrets: tuple[str, ...]) -> str:
    """Return AIRisk's words where they are plain and repeat nothing secret, else an empty string."""
    if isinstance(value, str) and re.fullmatch(pattern, value) and not any(s and s in value for s in secrets):
        return str(value)
    return ""


def _retry_after(reply: Reply) -> float | None:
    """Read ``Retry-After`` (RFC 9110, section 10.2.3), seconds or a date, as seconds, capped at a minute."""
    if re.fullmatch(r"\d{1,9}", reply.retry_after, re.ASCII):
        return min(float(reply.retry_after), MAX_RETRY_AFTER)
    date = _http_date(reply.retry_after)
    if date is None or reply.answered_at is None or date <= reply.answered_at:
        return None
    return min((date - reply.answered_at).total_seconds(), MAX_RETRY_AFTER)


def _http_date(value: str) -> datetime | None:
    """Read a date of HTTP (RFC 9110, section 5.6.7), or return ``None`` for anything else."""
    try:
        date = parsedate_to_datetime(value)
        return date.replace(tzinfo=date.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _fields(reply: Reply, *names: str) -> list[object] | None:
    """Return these fields of the JSON object that the body is, or ``None`` where it is none.

    No error is raised where the whole body is at hand: a traceback shows local variables.
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
    """Return how deep lists and objects are within one another; Python's own limit is another in each version."""
    depth = deepest = 0
    for mark in re.findall(rb'"(?:[^"\\]|\\.)*\\?(?:"|\Z)|[\[\]{}]', body, re.DOTALL):
        depth += (mark in b"[{") - (mark in b"]}")
        deepest = max(depth, deepest)
    return deepest


def _scalar(value: object) -> object:
    """Return a value whose ``repr`` can be seen: a list or object, never valid here, might hold a token."""
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
