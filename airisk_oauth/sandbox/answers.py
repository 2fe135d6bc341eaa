"""The shapes in which AIRisk answers. None is translated: AIRisk's own words are part of what is imitated.

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
_STRAY_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>AIRisk</title></head>
<body><div id="app"></div></body></html>
"""


class Refusal(Exception):
    """AIRisk says no; carries the answer in which it does, and what that says."""

    def __init__(self, response: HttpResponse, reason: str = "", trace_id: str = "") -> None:
        super().__init__(response.status_code)
        self.response, self.reason, self.trace_id = response, reason, trace_id


def answer_json(content: object) -> JsonResponse:
    """A successful answer, with the content type as Kestrel writes it."""
    return JsonResponse(content, safe=False, content_type="application/json; charset=utf-8")


def invalid(what: str) -> Refusal:
    """400 in plain text: a parameter is missing or wrong."""
    reason = f"Invalid {what}"
    return Refusal(HttpResponse(reason, status=400, content_type="text/plain; charset=utf-8"), reason)


def problem(status: int) -> Refusal:
    """401, 403 or 404 as problem details, with a `traceId` that no other answer has."""
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
    """A refusal of the authorization endpoint as AIRisk "may redirect to a json response with error parameters".

    :param shape: of `world.REFUSALS`.
    :param error_page: the path of AIRisk's own to redirect to.
    """
    trace_id = refusal.trace_id or new_trace_id()
    if shape == "json":
        return answer_json({"error": "invalid_request", "error_description": refusal.reason, "traceId": trace_id})
    query = {"error_description": refusal.reason, "traceId": trace_id}
    if shape == "error":
        query = {"error": "invalid_request", **query}
    return HttpResponse(status=302, headers={"Location": f"{error_page}?{urlencode(query)}"})


def new_trace_id() -> str:
    """What AIRisk's support asks for."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00"


def not_allowed(method: str) -> Refusal:
    """405: the endpoint exists, for another method."""
    return Refusal(HttpResponse(status=405, headers={"Allow": method}))


def outage(retry_after: int | None) -> Refusal:
    """503 as the front end before AIRisk writes it when nothing behind it answers."""
    response = HttpResponse(_FRONT_END_PAGE, status=503)
    if retry_after is not None:
        response["Retry-After"] = str(retry_after)
    return Refusal(response)


def stray_page() -> HttpResponse:
    """200 and a web page where JSON was due, as a proxy or a single-page app in the way would answer."""
    return HttpResponse(_STRAY_PAGE)


def moment(timestamp: float) -> str:
    """A moment as AIRisk writes it: `2025-03-31T13:12:17Z`."""
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment_without_offset(timestamp: float) -> str:
    """A moment as .NET writes it when it does not know its zone, the last instant of the second before."""
    return datetime.fromtimestamp(timestamp - 1, UTC).strftime("%Y-%m-%dT%H:%M:%S.9999999")


def add_hosting_headers(request: HttpRequest, response: HttpResponseBase) -> None:
    """What Azure adds to every answer: affinity cookies and HSTS."""
    response.set_cookie("ARRAffinity", _INSTANCE, secure=True, httponly=True)
    response.set_cookie("ARRAffinitySameSite", _INSTANCE, secure=True, httponly=True, samesite="None")
    # Browsers have to ignore HSTS that comes over plain HTTP (RFC 6797, section 8.1). Over HTTPS it would be
    # obeyed, and lock the developer's host name to HTTPS for a month.
    if not request.is_secure():
        response["Strict-Transport-Security"] = "max-age=2592000"
