"""What all sandbox views have in common: when they are available, and how AIRisk handles a request."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TypeAlias

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.db.transaction import non_atomic_requests
from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt, csrf_protect

from .answers import Refusal, add_hosting_headers, not_allowed, outage
from .world import Caller, JournalEntry, world

_NOT_SECRET = ("client_id", "redirect_uri", "userid")
_VALUE_LENGTH = 200


@dataclass(frozen=True)
class SandboxRequest:
    """A request to an endpoint of AIRisk's."""

    request: HttpRequest
    given: dict[str, str]
    """The parameters: from the body of a POST, otherwise from the query string."""
    caller: Caller | None
    """The owner of the bearer token, if the request has a valid one."""
    rest: str = ""
    """The id at the end of the path, if there is one."""


View: TypeAlias = Callable[..., HttpResponseBase]
AIRiskView: TypeAlias = Callable[[SandboxRequest], HttpResponseBase]


def sandbox_view(view: View) -> View:
    """Make a view available in development only, and exempt it from the site's own rules."""

    @wraps(view)
    def only_in_development(request: HttpRequest, **kwargs: str) -> HttpResponseBase:
        if not settings.DEBUG and getattr(settings, "AIRISK_OAUTH_SANDBOX", None) is not True:
            raise Http404
        return view(request, **kwargs)

    # AIRisk knows neither the site's logins nor its CSRF tokens. The views with forms apply `csrf_protect` themselves,
    # after the check above, so that they also answer 404 outside of development. In a transaction, a view could wait
    # for a lock that is held by the request that waits for its answer.
    return csrf_exempt(login_not_required(non_atomic_requests(only_in_development)))


def endpoint(path: str, method: str, *, has_form: bool = False) -> Callable[[AIRiskView], View]:
    """Turn a function into an AIRisk endpoint with latency, outages, its host's headers and journal entries.

    :param path: as the journal shows it.
    :param has_form: the endpoint shows a form or receives one, so it checks the CSRF token.
    """

    def decorate(view: AIRiskView) -> View:
        @wraps(view)
        def receive(request: HttpRequest, rest: str = "") -> HttpResponseBase:
            started = time.monotonic()
            time.sleep(world.switches.latency)
            call = SandboxRequest(request, _parameters(request), _caller(request), rest)
            try:
                response = _answer(view, method, call, has_form=has_form)
            except Refusal as refusal:
                response = refusal.response
            add_hosting_headers(request, response)
            _record(path, call, started, response.status_code)
            return response

        return sandbox_view(receive)

    return decorate


def _answer(view: AIRiskView, method: str, call: SandboxRequest, *, has_form: bool) -> HttpResponseBase:
    switches = world.switches
    if switches.outage:
        raise outage(switches.retry_after)
    if call.request.method != method:
        raise not_allowed(method)
    return csrf_protect(lambda request: view(call))(call.request) if has_form else view(call)


def _record(path: str, call: SandboxRequest, started: float, status: int) -> None:
    values = {name: call.given[name] for name in _NOT_SECRET if name in call.given}
    if call.caller is not None:
        values = {"client_id": call.caller.client_id, "userid": call.caller.userid or ""}
    world.record(
        JournalEntry(
            time=world.clock(),
            started=started,
            ended=time.monotonic(),
            endpoint=path,
            method=str(call.request.method),
            parameters=tuple(sorted({*call.request.GET, *call.given})),
            values={name: value[:_VALUE_LENGTH] for name, value in values.items()},
            status=status,
        )
    )


def _caller(request: HttpRequest) -> Caller | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    # Names of schemes are case-insensitive (RFC 9110, section 11.1).
    return world.caller_of(token.strip()) if scheme.lower() == "bearer" else None


def _parameters(request: HttpRequest) -> dict[str, str]:
    if request.method != "POST":
        return request.GET.dict()
    if request.content_type != "application/json":
        return request.POST.dict()
    try:
        fields = json.loads(request.body)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(fields, dict):
        return {}
    return {name: str(value) for name, value in fields.items() if value is not None}
