"""The pages of a connection: see where one stands, connect, come back from AIRisk, disconnect."""

import logging
import re
from http import HTTPStatus
from typing import Any, Final

from django.contrib import messages
from django.contrib.auth.decorators import login_not_required, login_required
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.utils.formats import date_format
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.timezone import localtime
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST, require_safe

from . import conf
from .connecting import browsers, flow
from .connecting.pages import _require_own_session, connection_status, deployment_or_404, start
from .connecting.problems import SignedOut, home_url, problem_response, say_problem
from .database.transactions import non_atomic
from .events import log
from .exceptions import AIRiskError
from .models import AIRiskToken
from .oauth.authorization import MalformedCallback
from .oauth.deployment import Deployment
from .oauth.messages import Secret

logger = logging.getLogger("airisk_oauth.views")

#: A path of this site: no other host, nothing that a browser or server would read as one, no control characters.
_NEXT: Final = r"(?i)/(?!/)(?![^?#]*//)(?![^?#]*/\.{1,2}(?:[/?#]|$))(?![^?#]*%(?:[01][0-9a-f]|7f|5c))[^\\\s]*"


@never_cache
@login_required
@require_safe
def connection(request: HttpRequest) -> HttpResponse:
    connections = [connection_status(request, conf.deployment(alias)) for alias in conf.aliases()]
    return _page(request, "connection", {"connections": connections})


# What begins with reading may not go on to write in one transaction, on SQLite as Django sets it up.
@non_atomic
@never_cache
@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def connect(request: HttpRequest, alias: str = conf.DEFAULT_ALIAS) -> HttpResponse:
    deployment = deployment_or_404(alias)
    next_url = _safe_next(request.POST.get("next") or request.GET.get("next"))
    if request.method != "POST":
        return _page(
            request, "connect", {"connection": connection_status(request, deployment, next_url), "next": next_url}
        )
    return start(request, deployment, next_url=next_url)


# A spent state stays spent, whatever happens afterwards in the request.
@non_atomic
@login_not_required
@never_cache
@require_GET
def callback(request: HttpRequest, alias: str = conf.DEFAULT_ALIAS) -> HttpResponse:
    """Take a browser that AIRisk sent back (RFC 6749, section 4.1.2). Takes it once, and says so if it comes again."""
    query = Secret(request.META.get("QUERY_STRING", ""))
    _blank_query(request)
    if "prefetch" in request.headers.get("Sec-Purpose", request.headers.get("Purpose", "")):
        return HttpResponse(status=HTTPStatus.TOO_EARLY)
    try:
        response = _complete(request, deployment_or_404(alias), query)
    except (Http404, MalformedCallback, flow.CallbackRejected, SignedOut) as error:
        message = "A callback of user %(user_id)s to deployment %(deployment)s was rejected: %(error)s"
        who = request.user.pk
        log(logger, logging.WARNING, "callback.rejected", message, why=error, user_id=who, deployment=alias)
        # Not the site's own page, whose assets may be foreign: code and state stand in this one's address.
        response = problem_response(request, error)
    # Where a page of ours is shown at the callback's address, code and state in that go nowhere else. With no referrer
    # at all, browsers would send "Origin: null" with the forms of that page, and Django would refuse them.
    response.headers["Referrer-Policy"] = "strict-origin"
    return response


@non_atomic
@never_cache
@login_required
@require_POST
def disconnect(request: HttpRequest, alias: str = conf.DEFAULT_ALIAS) -> HttpResponse:
    deployment = deployment_or_404(alias)
    token = AIRiskToken.objects.primary().owned_by(request.user.pk, deployment.alias).first()
    if token is not None:
        flow.disconnect(token)
        text = _("You are disconnected from AIRisk.")
        if token.expires_at is None:
            text = _(
                "You are disconnected: this site has forgotten the token. AIRisk cannot revoke it, and named no end of "
                "it."
            )
        elif not token.is_expired:
            end = localtime(token.expires_at)
            until = f"{date_format(end, 'DATETIME_FORMAT')} {end:%Z}"
            text = _(
                "You are disconnected: this site has forgotten the token. AIRisk cannot revoke it; it ends there by "
                "itself, at %(until)s."
            ) % {"until": until}
        messages.success(request, text, fail_silently=True)
    return redirect(_safe_next(request.POST.get("next")) or home_url(request))


def _complete(request: HttpRequest, deployment: Deployment, query: Secret) -> HttpResponse:
    if not request.user.is_authenticated or not getattr(request.user, "is_active", True):
        raise SignedOut
    _require_own_session(request)
    value = browsers.value_of(request)
    browser = None if value is None else browsers.binding(request, value)
    try:
        connected = flow.complete(deployment, request.user, browser=browser, query=query)
    except (AIRiskError, flow.IdentityChanged, flow.NotPermitted) as error:
        message = "User %(user_id)s could not be connected to deployment %(deployment)s: %(why)s"
        who, alias = request.user.pk, deployment.alias
        log(logger, logging.WARNING, "connection.failed", message, why=error, user_id=who, deployment=alias)
        return say_problem(request, error)
    if connected.first:
        messages.success(request, _("You are connected to AIRisk."), fail_silently=True)
    return redirect(_safe_next(connected.pending.next) or home_url(request))


def _page(request: HttpRequest, name: str, context: dict[str, Any]) -> HttpResponse:
    """Show a page that offers to connect, to a browser that is recognized when it does."""
    response = render(request, f"airisk_oauth/{name}.html", context)
    browsers.keep(response, browsers.value_for(request))
    return response


def _safe_next(url: str | None) -> str:
    """Return a path of this site, or an empty string."""
    if url and re.fullmatch(_NEXT, url) and url.isprintable() and url_has_allowed_host_and_scheme(url, None):
        return url
    return ""


def _blank_query(request: HttpRequest) -> None:
    """Take code and state out of the request, where error reports and middleware would find them."""
    for key in ("QUERY_STRING", "REQUEST_URI", "RAW_URI"):
        if key in request.META:
            request.META[key] = ""
    if hasattr(request, "scope"):
        request.scope["query_string"] = b""
    request.GET = QueryDict()
