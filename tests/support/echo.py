"""A call that the real AIRisk does not have, for tests of what arrives; any valid token may make it."""

import hashlib

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import path

from airisk_oauth.sandbox.answers import answer_json, problem
from airisk_oauth.sandbox.endpoint import SandboxRequest, endpoint


def _said(call: SandboxRequest) -> HttpResponseBase:
    """Return the body that arrived with its hash, which shows whether a repeated body was the same."""
    if call.caller is None:
        raise problem(401)
    body = call.request.body
    digest = hashlib.sha256(body).hexdigest()
    return answer_json({"text": body.decode(errors="replace"), "length": len(body), "sha256": digest})


_answers = {method: endpoint("/api/Echo", method)(_said) for method in ("GET", "POST")}


def echo(request: HttpRequest) -> HttpResponseBase:
    # Read before the form is parsed, which would consume it.
    assert request.body is not None
    return _answers[str(request.method)](request)


echo.csrf_exempt = True  # type: ignore[attr-defined]
urlpatterns = [path("sandbox/api/Echo", echo), path("second-sandbox/api/Echo", echo)]
