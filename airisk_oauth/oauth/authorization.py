"""AIRisk's authorization endpoint: its URL, the callback, and what it answers to our own server.

Pure functions: no I/O, no clock. No error repeats anything of what was read.
"""

import re
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

from ..exceptions import AIRiskInvalidResponse, AIRiskRefused
from .deployment import Deployment, origin_of
from .messages import OAuthResponse, Secret
from .refusals import TRACE_ID, harmless, refusal, refusal_reason, refused_by_redirect

MAX_QUERY: Final = 16 * 1024

#: The error for a code without the state that was sent; ``check_airisk`` recognizes it by these words.
STATE_MISSING: Final = "AIRisk's redirect has no state, although one was sent."

_VSCHAR: Final = r"[\x21-\x7e]+"


class Callback(NamedTuple):
    """The query that AIRisk sent to the redirect URI.

    :ivar answer: the code, or AIRisk's refusal.
    :ivar iss: the issuer (RFC 9207); AIRisk itself sends none.
    """

    state: Secret
    answer: Secret | AIRiskRefused
    iss: str | None = None


class MalformedCallback(Exception):
    """A query that AIRisk cannot have sent."""


class PageShown(Exception):
    """The authorization endpoint requires a person: it showed a page, or redirected elsewhere than to us."""


def authorization_url(deployment: Deployment, *, state: str, userid: str | None) -> Secret:
    """Return the URL that starts a flow (RFC 6749, section 4.1.1; AIRisk, "authorization endpoint").

    :param userid: ``None`` for the application's token.
    """
    query = {"client_id": deployment.client_id, "redirect_uri": deployment.redirect_uri, "state": state}
    if userid is not None:
        query["userid"] = userid
    return Secret(f"{deployment.authorize_url}?{urlencode({**deployment.extra_authorize_params, **query})}")


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
        return Callback(Secret(state), refused_by_redirect(error), values.get("iss"))
    if not re.fullmatch(_VSCHAR, code or ""):
        raise MalformedCallback
    return Callback(Secret(state), Secret(code), values.get("iss"))


def read_authorization(reply: OAuthResponse, *, endpoint: str, redirect_uri: str, state: str) -> Secret:
    """Return the code from the authorization endpoint's answer to our own server (AIRisk: "302 at once").

    :param endpoint: the URL of the authorization endpoint.
    :raises PageShown: AIRisk requires a person.
    :raises AIRiskRefused: AIRisk refused, by status, by error parameters, or with JSON.
    :raises AIRiskUnavailable: 5xx or 429.
    :raises AIRiskInvalidResponse: a redirect to us with a wrong state or none, or one that cannot be read.
    """
    if reply.status >= 400:
        raise refusal(reply, secrets=(state,))
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
        raise AIRiskInvalidResponse("AIRisk's redirect has another state than the one that was sent.")
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
        # This answers our own request, so that an error can be believed without a state; a code cannot.
        raise refused_by_redirect(names["error"])
    raise AIRiskInvalidResponse("AIRisk's redirect cannot be read.")


def own_page(reply: OAuthResponse, *, endpoint: str, redirect_uri: str) -> Secret | None:
    """Return the page on AIRisk that the authorization endpoint redirects to, if only that page tells what is meant.

    It may be a page for a person, or JSON: AIRisk "may redirect to a json response". ``None`` for every answer that is
    clear by itself, and for an address with a code in it, which must not be sent anywhere else.
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
    # Only path and query count, and of those only characters that a URL can contain.
    address = urlunsplit((own.scheme, own.netloc, parts.path, parts.query, ""))
    return Secret(address) if len(address) <= MAX_QUERY and re.fullmatch(_VSCHAR, address) else None


def check_not_refused(reply: OAuthResponse, *, secrets: tuple[str, ...]) -> None:
    """Raise the refusal that the authorization endpoint, or the page it redirects to, answers; let other pages pass.

    :raises AIRiskRefused: JSON, whatever its status, or an error status in plain text.
    :raises AIRiskUnavailable: 5xx or 429.
    """
    is_error = reply.status >= 400
    in_words = "json" in reply.content_type or (is_error and reply.content_type.startswith("text/plain"))
    is_redirect = 300 <= reply.status < 400 and reply.location is not None
    if reply.status == 429 or reply.status >= 500 or (in_words and not is_redirect):
        raise refusal(reply, secrets=secrets)


def _is_within(endpoint: str, location: str) -> bool:
    try:
        return origin_of(urljoin(endpoint, location)) == origin_of(endpoint)
    except ValueError:
        return False


def _query_of(query: str) -> dict[str, str]:
    """Return the parameters of a query that have a value; none if it is too long or has too many."""
    try:
        pairs = parse_qsl(query, max_num_fields=50) if len(query) <= MAX_QUERY else []
    except ValueError:
        return {}
    return {name: Secret(value) for name, value in pairs}


def _check_error(query: str, *, secrets: tuple[str, ...]) -> None:
    """Raise the refusal that a query's error parameters describe, if there are any."""
    values = _query_of(query)
    if values.get("error"):
        reason = refusal_reason(None, values["error"], values.get("error_description"), secrets)
        raise AIRiskRefused(302, reason, harmless(values.get("traceId"), TRACE_ID, secrets))
