"""The OAuth endpoints, as a browser or another server comes to them."""

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
    """Redirect with a code at once; the userid is the client's assertion, and AIRisk believes it."""
    server = _server()
    try:
        grant = server.grant(call.given)
    except Refusal as refusal:
        if not world.switches.refusals:
            raise
        return refusal_as_json(refusal, world.switches.refusals, f"{call.request.path}/Error")
    if not world.switches.login_page:
        return _send_back(server, grant, call)
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
    """Where the button of the page leads: on with the redirect that the page held up."""
    server = _server()
    # All is checked again, so there is no need to trust what the page carried.
    return _send_back(server, server.grant(call.given), call)


@endpoint("/api/oauth2/Error", "GET")
def error(call: SandboxRequest) -> HttpResponseBase:
    """The JSON to which a refused authorization request may be redirected."""
    return answer_json({"error": "invalid_request", **call.given})


@endpoint("/api/oauth2/Token", "POST")
def token(call: SandboxRequest) -> HttpResponseBase:
    """Exchange a code for a token."""
    return _server().exchange(call.given)


def _server() -> AuthorizationServer:
    return AuthorizationServer(world, clients(), lambda userid: display_name(userid) is not None)


def _send_back(server: AuthorizationServer, grant: Grant, call: SandboxRequest) -> HttpResponse:
    return server.send_back(grant, call.given, "access_denied" if world.switches.refuse else "")
