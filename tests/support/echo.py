"""A call that AIRisk does not have, for tests of what arrives: every good token may make it, the application's too."""

import hashlib

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import path

from airisk_oauth.sandbox.answers import answer_json, problem
from airisk_oauth.sandbox.endpoint import SandboxRequest, endpoint


def _said(call: SandboxRequest) -> HttpResponseBase:
    """Tell what arrived, to the byte: whether a body that was sent twice was the same both times."""
    if call.caller is None:
        raise problem(401)
    body = call.request.body
    digest = hashlib.sha256(body).hexdigest()
    return answer_json({"text": body.decode(errors="replace"), "length": len(body), "sha256": digest})


_answers = {method: endpoint("/api/Echo", method)(_said) for method in ("GET", "POST")}


def echo(request: HttpRequest) -> HttpResponseBase:
    # Kept before a form is read from it, which would use it up.
    assert request.body is not None
    return _answers[str(request.method)](request)


echo.csrf_exempt = True  # type: ignore[attr-defined]
urlpatterns = [path("sandbox/api/Echo", echo), path("second-sandbox/api/Echo", echo)]
