"""The forms of AIRisk's answers. They are not translated, because AIRisk's own words are imitated, too.

Sources: https://docs.aicrisk.com/api-overview/airisk-api-oauth2-authentication, error responses; RFC 9457
(problem details); https://www.w3.org/TR/trace-context/ (the form of `traceId`).
"""

import secrets
from datetime import UTC, datetime
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase

_PROBLEMS = {401: ("Unauthorized", "15.5.2"), 403: ("Forbidden", "15.5.4"), 404: ("Not Found", "15.5.5")}
_INSTANCE = "6a1f0c8e5b7d49238d1e4f60b2c39a7584fe1d0c6b5a49382716f5e4d3c2b1a0"
_FRONT_END_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Service unavailable</title></head>
<body><h2>Our services aren't available right now</h2>
<p>We're working to restore all services as soon as possible. Please check back soon.</p></body></html>
"""
_WEB_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>AIRisk</title></head>
<body><div id="app"></div></body></html>
"""


class Refusal(Exception):
    """AIRisk refuses a request.

    :ivar response: the answer that says so.
    :ivar reason: AIRisk's words in it, if any.
    :ivar trace_id: the `traceId` in it, if any.
    """

    def __init__(self, response: HttpResponse, reason: str = "", trace_id: str = "") -> None:
        super().__init__(response.status_code)
        self.response, self.reason, self.trace_id = response, reason, trace_id


def answer_json(content: object) -> JsonResponse:
    """Return a successful answer, with the content type as Kestrel writes it."""
    return JsonResponse(content, safe=False, content_type="application/json; charset=utf-8")


def invalid(what: str) -> Refusal:
    """Return a refusal with status 400 in plain text: a parameter is missing or wrong."""
    reason = f"Invalid {what}"
    return Refusal(HttpResponse(reason, status=400, content_type="text/plain; charset=utf-8"), reason)


def problem(status: int) -> Refusal:
    """Return a refusal with status 401, 403 or 404 as problem details, with a unique `traceId`."""
    title, section = _PROBLEMS[status]
    content = {
        "type": f"https://tools.ietf.org/html/rfc9110#section-{section}",
        "title": title,
        "status": status,
        "traceId": (trace_id := new_trace_id()),
    }
    response = JsonResponse(content, status=status, content_type="application/problem+json; charset=utf-8")
    return Refusal(response, title, trace_id)


def refusal_as_json(refusal: Refusal, shape: str, error_page: str) -> HttpResponse:
    """Return a refusal of the authorization endpoint in JSON, or as a redirect to JSON.

    AIRisk's documentation says that it "may redirect to a json response with error parameters".

    :param shape: one of `world.REFUSALS`, except the first.
    :param error_page: the path on AIRisk to redirect to.
    """
    trace_id = refusal.trace_id or new_trace_id()
    if shape == "json":
        return answer_json({"error": "invalid_request", "error_description": refusal.reason, "traceId": trace_id})
    query = {"error_description": refusal.reason, "traceId": trace_id}
    if shape == "error":
        query = {"error": "invalid_request", **query}
    return HttpResponse(status=302, headers={"Location": f"{error_page}?{urlencode(query)}"})


def new_trace_id() -> str:
    """Return a new id of the kind that AIRisk's support asks for."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00"


def not_allowed(method: str) -> Refusal:
    """Return a refusal with status 405: the endpoint is for another method."""
    return Refusal(HttpResponse(status=405, headers={"Allow": method}))


def outage(retry_after: int | None) -> Refusal:
    """Return a refusal with status 503, as AIRisk's front end answers when nothing behind it does."""
    response = HttpResponse(_FRONT_END_PAGE, status=503)
    if retry_after is not None:
        response["Retry-After"] = str(retry_after)
    return Refusal(response)


def web_page() -> HttpResponse:
    """Return a web page with status 200 instead of JSON, as a proxy or a single-page app might answer."""
    return HttpResponse(_WEB_PAGE)


def format_time(timestamp: float) -> str:
    """Return a time as AIRisk writes it: `2025-03-31T13:12:17Z`."""
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_time_without_offset(timestamp: float) -> str:
    """Return the last instant of the second before, as .NET writes a time whose zone it does not know."""
    return datetime.fromtimestamp(timestamp - 1, UTC).strftime("%Y-%m-%dT%H:%M:%S.9999999")


def add_hosting_headers(request: HttpRequest, response: HttpResponseBase) -> None:
    """Add what Azure adds to every answer: affinity cookies and HSTS."""
    response.set_cookie("ARRAffinity", _INSTANCE, secure=True, httponly=True)
    response.set_cookie("ARRAffinitySameSite", _INSTANCE, secure=True, httponly=True, samesite="None")
    # Browsers ignore HSTS over plain HTTP (RFC 6797, section 8.1). Over HTTPS they would obey it, and only use HTTPS
    # for the developer's host name for a month.
    if not request.is_secure():
        response["Strict-Transport-Security"] = "max-age=2592000"
