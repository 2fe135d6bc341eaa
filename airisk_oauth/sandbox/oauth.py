"""The OAuth endpoints.

Source: https://docs.aicrisk.com/api-overview/airisk-api-oauth2-authentication, authorization endpoint and
token endpoint. Parameters that are not documented there are ignored; the journal has their names.
"""

from collections.abc import Mapping
from urllib.parse import urlencode

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.utils.encoding import iri_to_uri

from .answers import answer_json, invalid, moment, problem, stray_page
from .endpoint import Call, endpoint
from .registry import clients, display_name, redirect_uris
from .world import Caller, Grant, world

_DOCUMENTED = ("client_id", "redirect_uri", "state", "userid")


@endpoint("/api/oauth2", "GET", has_form=True)
def authorize(call: Call) -> HttpResponseBase:
    """Redirect with a code at once; the userid is the client's assertion, and AIRisk believes it."""
    grant = _grant(call.given)
    if not world.switches.login_page:
        return _send_back(grant, call.given)
    context = {
        "client_id": grant.client_id,
        "display_name": display_name(grant.userid) if grant.userid is not None else None,
        "fields": [(name, call.given[name]) for name in _DOCUMENTED if name in call.given],
    }
    response = render(call.request, "airisk_sandbox/login.html", context)
    response["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'"
    return response


@endpoint("/api/oauth2/Consent", "POST", has_form=True)
def consent(call: Call) -> HttpResponseBase:
    """Where the button of the page leads: on with the redirect that the page held up."""
    # All is checked again, so there is no need to trust what the page carried.
    return _send_back(_grant(call.given), call.given)


@endpoint("/api/oauth2/Token", "POST")
def token(call: Call) -> HttpResponseBase:
    """Exchange a code for a token."""
    given = call.given
    for name in ("client_id", "client_secret", "redirect_uri", "code"):
        if not given.get(name):
            raise invalid(name)
    client = clients().get(given["client_id"])
    if client is None or client["client_secret"] != given["client_secret"]:
        raise problem(401)
    if given["redirect_uri"] not in redirect_uris(client):
        raise invalid("redirect_uri")
    # Used up even where something else does not fit: a code in the wrong hands is not safe any more.
    grant = world.redeem(given["code"])
    if grant != Grant(given["client_id"], given["redirect_uri"], given.get("userid")):
        raise invalid("Code")
    if world.switches.malformed:
        return stray_page()
    return _token_answer(Caller(given["client_id"], given.get("userid")))


def _grant(given: Mapping[str, str]) -> Grant:
    """What a valid authorization request asks for; anything else stays on AIRisk with an error response."""
    client_id, redirect_uri, userid = given.get("client_id"), given.get("redirect_uri"), given.get("userid")
    if not client_id:
        raise invalid("client_id")
    client = clients().get(client_id)
    if client is None:
        raise problem(401)
    if not redirect_uri or redirect_uri not in redirect_uris(client):
        raise invalid("redirect_uri")
    # An empty userid is not a missing one: what asks for a person must never get the application's token.
    if userid is not None and display_name(userid) is None:
        raise invalid("userid")
    return Grant(client_id, redirect_uri, userid)


def _send_back(grant: Grant, given: Mapping[str, str]) -> HttpResponse:
    """302 to the client, with the state exactly as it came (RFC 6749, sections 4.1.2 and 4.1.2.1)."""
    query = {"error": "access_denied"} if world.switches.refuse else {"code": world.new_code(grant)}
    if "state" in given:
        query["state"] = given["state"]
    separator = "&" if "?" in grant.redirect_uri else "?"
    # Not HttpResponseRedirect: a web view may have registered a scheme of its own, which that one forbids.
    location = iri_to_uri(f"{grant.redirect_uri}{separator}{urlencode(query)}")
    return HttpResponse(status=302, headers={"Location": location})


def _token_answer(caller: Caller) -> HttpResponse:
    switches = world.switches
    access_token, ends = world.new_token(caller)
    content: dict[str, str | int | None] = {"access_token": access_token}
    if ends is not None and switches.expires_in_shape:
        content["expires_in"] = switches.token_life
    elif ends is not None:
        content["expiration"] = moment(ends)
    return answer_json(content)
