"""Calls that AIRisk does not have, for tests of what arrives and what comes back.

Every token that AIRisk accepts may make them, the application's too.
"""

import hashlib

from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase
from django.urls import path

from airisk_oauth.sandbox.answers import answer_json, problem
from airisk_oauth.sandbox.endpoint import SandboxRequest, endpoint


def _what_arrived(call: SandboxRequest) -> HttpResponseBase:
    """Return what arrived, to the byte, so that a body that was sent twice can be compared."""
    if call.caller is None:
        raise problem(401)
    body = call.request.body
    digest = hashlib.sha256(body).hexdigest()
    return answer_json({"text": body.decode(errors="replace"), "length": len(body), "sha256": digest})


_answers = {method: endpoint("/api/Echo", method)(_what_arrived) for method in ("GET", "POST")}


def echo(request: HttpRequest) -> HttpResponseBase:
    # Read first, because reading a form from it would use it up.
    assert request.body is not None
    return _answers[str(request.method)](request)


@endpoint("/api/Answer", "GET")
def answer(call: SandboxRequest) -> HttpResponseBase:
    """Respond with the ``status`` and the ``Location`` (``to``) that the parameters name.

    The body holds the cookies that arrived. A 401 for a token that AIRisk does not accept sets one, and is long.
    """
    if call.caller is None:
        refusal = problem(401)
        refusal.response.content = bytes(200_000)
        refusal.response.set_cookie("seen", "yes")
        raise refusal
    response = JsonResponse({"cookies": call.request.COOKIES}, status=int(call.given.get("status", 200)))
    if "to" in call.given:
        response["Location"] = call.given["to"]
    return response


echo.csrf_exempt = True  # type: ignore[attr-defined]
urlpatterns = [
    path("sandbox/api/Echo", echo),
    path("second-sandbox/api/Echo", echo),
    path("sandbox/api/Answer", answer),
]
