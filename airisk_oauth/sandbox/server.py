"""The rules of AIRisk's OAuth endpoints, independent of how requests arrive.

Source: https://docs.aicrisk.com/api-overview/airisk-api-oauth2-authentication, authorization endpoint and
token endpoint. Parameters that are not documented there are ignored.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from django.http import HttpResponse
from django.utils.encoding import iri_to_uri

from .answers import answer_json, invalid, problem, web_page
from .registry import Clients, redirect_uris
from .world import Caller, Grant, World


@dataclass(frozen=True)
class AuthorizationServer:
    """The rules of both OAuth endpoints, for these clients; methods raise `Refusal`."""

    world: World
    clients: Clients
    is_user: Callable[[str], bool]

    def grant(self, given: Mapping[str, str]) -> Grant:
        """Return what a valid authorization request asks for; all others are refused without a redirect back."""
        client_id, redirect_uri, userid = given.get("client_id"), given.get("redirect_uri"), given.get("userid")
        if not client_id:
            raise invalid("client_id")
        client = self.clients.get(client_id)
        if client is None:
            raise problem(401)
        if not redirect_uri or redirect_uri not in redirect_uris(client):
            raise invalid("redirect_uri")
        # An empty userid is not a missing one: a request for a user must never get the application's token.
        if userid is not None and not self.is_user(userid):
            raise invalid("userid")
        return Grant(client_id, redirect_uri, userid)

    def redirect_back(self, grant: Grant, given: Mapping[str, str], error: str = "") -> HttpResponse:
        """Return the redirect to the client, with the state unchanged (RFC 6749, sections 4.1.2 and 4.1.2.1)."""
        query = {"error": error} if error else {"code": self.world.new_code(grant)}
        if "state" in given and not self.world.switches.state_missing:
            query["state"] = given["state"]
        separator = "&" if "?" in grant.redirect_uri else "?"
        # Not HttpResponseRedirect: it rejects custom schemes, which a mobile app may have registered.
        location = iri_to_uri(f"{grant.redirect_uri}{separator}{urlencode(query)}")
        return HttpResponse(status=302, headers={"Location": location})

    def exchange(self, given: Mapping[str, str]) -> HttpResponse:
        """Return a token for a code."""
        switches = self.world.switches
        compared = () if switches.any_redirect_uri else ("redirect_uri",)
        for name in ("client_id", "client_secret", *compared, "code"):
            if not given.get(name):
                raise invalid(name)
        client = self.clients.get(given["client_id"])
        if client is None or client["client_secret"] != given["client_secret"]:
            raise problem(401)
        if compared and given["redirect_uri"] not in redirect_uris(client):
            raise invalid("redirect_uri")
        # The code is spent even if something else is wrong: once in the wrong hands, it is no longer safe.
        grant = self.world.redeem(given["code"])
        if grant is None:
            raise invalid("Code")
        userid = grant.userid if switches.codes_carry_user else given.get("userid")
        redirect_uri = given["redirect_uri"] if compared else grant.redirect_uri
        if grant != Grant(given["client_id"], redirect_uri, userid):
            raise invalid("Code")
        if switches.malformed:
            return web_page()
        return self._token_answer(Caller(grant.client_id, grant.userid))

    def _token_answer(self, caller: Caller) -> HttpResponse:
        switches = self.world.switches
        access_token, expires_at = self.world.new_token(caller, switches.token_life)
        content: dict[str, str | int | None] = {"access_token": access_token}
        if expires_at is not None and switches.expires_in_shape:
            content["expires_in"] = switches.token_life
        elif expires_at is not None:
            content["expiration"] = self.world.format_time(expires_at)
        return answer_json(content)
