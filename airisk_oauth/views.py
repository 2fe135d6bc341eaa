"""The pages for a person's connection to AIRisk: see it, connect, come back from AIRisk, disconnect.

All but the way back from AIRisk have a JSON form for scripts.
"""

import logging
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.middleware.csrf import get_token
from django.shortcuts import redirect, render
from django.urls import get_script_prefix
from django.utils.formats import date_format
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.timezone import localtime
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST, require_safe

from . import conf
from .connecting import browsers, flow
from .connecting.impersonation import is_impersonated
from .connecting.pages import deployment_or_404, for_browsers_and_scripts, redirect_to_airisk
from .connecting.problems import (
    ConnectionFailed,
    Problem,
    home_url,
    problem_on_connection_page,
    problem_page,
    reason_of,
)
from .connecting.reasons import Reason
from .connecting.scripts import is_script, json_response
from .connecting.status import connection_status, own_connections
from .database.transactions import non_atomic
from .events import log
from .exceptions import AIRiskError
from .models import AIRiskToken
from .oauth.deployment import Deployment
from .oauth.messages import Secret
from .providers.source import SettingUnavailable

logger = logging.getLogger("airisk_oauth.views")

#: A path of this site: no other host, nothing that a browser or server could take for one, no control characters.
_NEXT: Final = r"(?i)/(?!/)(?![^?#]*//)(?![^?#]*/\.{1,2}(?:[/?#]|$))(?![^?#]*%(?:[01][0-9a-f]|7f|5c))[^\\\s]*"


@for_browsers_and_scripts
@require_safe
def connection(request: HttpRequest) -> HttpResponse:
    next_url = _safe_next(request.GET.get("next"))
    connections = own_connections(request, next_url)
    if is_script(request):
        return _status_response(request, {"connections": [status.as_json() for status in connections]})
    return _page(request, "connection", {"connections": connections, "next": next_url})


# On SQLite, as Django sets it up, a transaction that begins by reading may fail when it goes on to write.
@non_atomic
@for_browsers_and_scripts
@require_http_methods(["GET", "HEAD", "POST"])
def connect(request: HttpRequest, alias: str = conf.DEFAULT_ALIAS) -> HttpResponse:
    deployment = deployment_or_404(alias)
    next_url = _safe_next(request.POST.get("next") or request.GET.get("next"))
    if request.method == "POST":
        return redirect_to_airisk(request, deployment, next_url=next_url)
    status = connection_status(request.user, alias, request=request, next_url=next_url)
    if is_script(request):
        return _status_response(request, status.as_json())
    return _page(request, "connect", {"connection": status, "next": next_url})


# A spent state has to stay spent even if the request fails afterwards.
@non_atomic
@login_not_required
@never_cache
@require_GET
def callback(request: HttpRequest, alias: str = conf.DEFAULT_ALIAS) -> HttpResponse:
    """Complete a connection when AIRisk sends the browser back (RFC 6749, section 4.1.2)."""
    query = Secret(request.META.get("QUERY_STRING", ""))
    _blank_query(request)
    if "prefetch" in request.headers.get("Sec-Purpose", request.headers.get("Purpose", "")):
        return HttpResponse(status=HTTPStatus.TOO_EARLY)
    next_url = None
    try:
        deployment = deployment_or_404(alias)
        begun = _begun(request, deployment, query)
        next_url = _safe_next(begun.pending.next)
        connected = flow.complete(deployment, request.user, begun)
    except (Http404, ConnectionFailed, AIRiskError, SettingUnavailable) as error:
        if next_url is None:
            next_url = _safe_next(flow.next_of_rejected(alias, request.user, query))
        response = _answer_problem(request, alias, error, next_url)
    else:
        if connected.first:
            messages.success(request, _("You are connected to AIRisk."), fail_silently=True)
        response = redirect(_safe_next(connected.pending.next) or home_url(request))
    # A page at the callback's address must not pass on the code and state that stand in it. With no referrer at all,
    # browsers would send "Origin: null" with the forms of that page, and Django would refuse them.
    response.headers["Referrer-Policy"] = "strict-origin"
    return response


@non_atomic
@for_browsers_and_scripts
@require_POST
def disconnect(request: HttpRequest, alias: str = conf.DEFAULT_ALIAS) -> HttpResponse:
    deployment = deployment_or_404(alias)
    token = AIRiskToken.objects.primary().owned_by(request.user.pk, deployment.alias).first()
    if token is not None:
        flow.disconnect(token)
    next_url = _safe_next(request.POST.get("next"))
    if is_script(request):
        status = connection_status(request.user, alias, request=request)
        return json_response(request, status.as_json(), redirect_to=next_url or None)
    if token is not None:
        messages.success(request, _disconnected_message(token), fail_silently=True)
    return redirect(next_url or home_url(request))


def _disconnected_message(token: AIRiskToken) -> str:
    if token.is_expired:
        return _("You are disconnected from AIRisk.")
    if token.expires_at is None:
        return _("You are disconnected from AIRisk. AIRisk itself did not say when it forgets the connection.")
    end = localtime(token.expires_at)
    until = f"{date_format(end, 'DATETIME_FORMAT')} {end:%Z}"
    return _("You are disconnected from AIRisk. AIRisk itself forgets the connection at %(until)s.") % {"until": until}


def _begun(request: HttpRequest, deployment: Deployment, query: Secret) -> flow.Begun:
    is_signed_in = request.user.is_authenticated and getattr(request.user, "is_active", True)
    if not is_signed_in or is_impersonated(request):
        raise ConnectionFailed(Reason.SIGNED_OUT)
    value = browsers.cookie_value(request)
    browser = None if value is None else browsers.binding(request, value)
    return flow.begun(deployment, request.user, browser=browser, query=query)


def _answer_problem(request: HttpRequest, alias: str, problem: Problem, next_url: str) -> HttpResponse:
    """Log why a callback connected nobody, and tell the person.

    :param next_url: path to go to after another try.
    """
    who = request.user.pk
    if reason_of(problem).rejects_callback:
        message = "A callback of user %(user_id)s to deployment %(deployment)s was rejected: %(error)s"
        log(logger, logging.WARNING, "callback.rejected", message, why=problem, user_id=who, deployment=alias)
        # Never the site's own page for a 404: it may load foreign assets, and the address still holds code and state.
        return problem_page(request, problem, next_url)
    message = "User %(user_id)s could not be connected to deployment %(deployment)s: %(why)s"
    log(logger, logging.WARNING, "connection.failed", message, why=problem, user_id=who, deployment=alias)
    return problem_on_connection_page(request, problem, next_url)


def _status_response(request: HttpRequest, body: Mapping[str, object]) -> HttpResponse:
    """Answer a script with JSON, and give the browser the CSRF cookie that it needs to connect or disconnect."""
    get_token(request)
    return json_response(request, body)


def _page(request: HttpRequest, name: str, context: dict[str, Any]) -> HttpResponse:
    """Show a page with a Connect button, and give the browser the cookie that its flow will be bound to."""
    response = render(request, f"airisk_oauth/{name}.html", {**context, "site_url": get_script_prefix()})
    browsers.set_cookie(response, browsers.cookie_value_or_new(request))
    return response


def _safe_next(url: str | None) -> str:
    """Return the URL if it is a path of this site, or an empty string."""
    if url and re.fullmatch(_NEXT, url) and url.isprintable() and url_has_allowed_host_and_scheme(url, None):
        return url
    return ""


def _blank_query(request: HttpRequest) -> None:
    """Remove code and state from the request, where error reports and middleware would find them."""
    for key in ("QUERY_STRING", "REQUEST_URI", "RAW_URI"):
        if key in request.META:
            request.META[key] = ""
    if hasattr(request, "scope"):
        request.scope["query_string"] = b""
    request.GET = QueryDict()
