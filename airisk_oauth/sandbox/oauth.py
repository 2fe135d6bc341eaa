"""The OAuth endpoints, as a browser or another server calls them."""

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render

from .answers import Refusal, answer_json, refusal_as_json
from .endpoint import SandboxRequest, endpoint
from .registry import clients, display_name
from .server import AuthorizationServer
from .world import Grant, world

_DOCUMENTED = ("client_id", "redirect_uri", "state", "userid")


@endpoint("/api/oauth2", "GET", has_form=True)
def authorize(call: SandboxRequest) -> HttpResponseBase:
    """Redirect with a code at once: AIRisk believes the client which user it is."""
    server = _server()
    try:
        grant = server.grant(call.given)
    except Refusal as refusal:
        if not world.switches.refusals:
            raise
        return refusal_as_json(refusal, world.switches.refusals, f"{call.request.path}/Error")
    if not world.switches.login_page:
        return _redirect_back(server, grant, call)
    context = {
        "client_id": grant.client_id,
        "display_name": display_name(grant.userid) if grant.userid is not None else None,
        "fields": [(name, call.given[name]) for name in _DOCUMENTED if name in call.given],
    }
    response = render(call.request, "airisk_sandbox/login.html", context)
    response["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'"
    return response


@endpoint("/api/oauth2/Consent", "POST", has_form=True)
def consent(call: SandboxRequest) -> HttpResponseBase:
    """Redirect after a button on the login page was clicked."""
    server = _server()
    # Everything is checked again, because the page's fields may have been changed.
    grant = server.grant(call.given)
    return _redirect_back(server, grant, call, is_refused=call.given.get("answer") == "refuse")


@endpoint("/api/oauth2/Error", "GET")
def error(call: SandboxRequest) -> HttpResponseBase:
    """Return the JSON that a refused authorization request can be redirected to."""
    return answer_json({"error": "invalid_request", **call.given})


@endpoint("/api/oauth2/Token", "POST")
def token(call: SandboxRequest) -> HttpResponseBase:
    """Exchange a code for a token."""
    return _server().exchange(call.given)


def _server() -> AuthorizationServer:
    return AuthorizationServer(world, clients(), lambda userid: display_name(userid) is not None)


def _redirect_back(
    server: AuthorizationServer, grant: Grant, call: SandboxRequest, *, is_refused: bool = False
) -> HttpResponse:
    return server.redirect_back(grant, call.given, "access_denied" if is_refused or world.switches.refuse else "")
