"""The pages of a connection: see where one stands, connect, come back from AIRisk, disconnect."""

import logging
import re
import secrets
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from django.conf import settings
from django.contrib import messages
from django.contrib.auth import SESSION_KEY
from django.contrib.auth.decorators import login_not_required, login_required
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.shortcuts import redirect, render
from django.utils.formats import date_format
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.timezone import localtime
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST, require_safe

from . import conf, flow, protocol
from .conf import Deployment
from .events import log
from .exceptions import (
    AIRiskError,
    AIRiskInvalidResponse,
    AIRiskRefused,
    AIRiskUnavailable,
    ConnectionRequired,
)
from .models import AIRiskToken
from .protocol import Secret
from .renewal import TokenKeeper

logger = logging.getLogger("airisk_oauth.views")

#: The key in the session of the random value that binds a flow to this browser.
BROWSER_KEY: Final = "airisk_oauth_browser"

#: A path of this site: no other host, nothing that a browser or server would read as one, no control characters.
_NEXT: Final = r"(?i)/(?!/)(?![^?#]*//)(?![^?#]*/\.{1,2}(?:[/?#]|$))(?![^?#]*%(?:[01][0-9a-f]|7f|5c))[^\\\s]*"


class SignedOut(Exception):
    """Nobody is signed in, or somebody acts in another's name."""


#: How a connection can fail to come about: status, title and text of its page.
_PROBLEMS: Final[dict[type[Exception], tuple[HTTPStatus, str, str]]] = {
    SignedOut: (
        HTTPStatus.FORBIDDEN,
        gettext_noop("You are not signed in here"),
        gettext_noop("Sign in with your own account in this browser, then connect again."),
    ),
    protocol.MalformedCallback: (
        HTTPStatus.BAD_REQUEST,
        gettext_noop("This link does not come from AIRisk"),
        gettext_noop("It is incomplete or was changed on the way. Nothing has happened; you can connect again."),
    ),
    Http404: (
        HTTPStatus.NOT_FOUND,
        gettext_noop("This link does not come from AIRisk"),
        gettext_noop("It is incomplete or was changed on the way. Nothing has happened; you can connect again."),
    ),
    flow.CallbackRejected: (
        HTTPStatus.FORBIDDEN,
        gettext_noop("This connection was not started here"),
        gettext_noop(
            "It was started in another browser or by another account, or too long ago. Nothing has happened; you can "
            "connect again."
        ),
    ),
    flow.StateExpired: (
        HTTPStatus.GONE,
        gettext_noop("That took too long"),
        gettext_noop("A connection has to be finished within ten minutes. Please connect again."),
    ),
    flow.StateSpent: (
        HTTPStatus.GONE,
        gettext_noop("This connection was already tried"),
        gettext_noop("It did not succeed, and cannot be used a second time. Please connect again."),
    ),
    flow.IdentityChanged: (
        HTTPStatus.FORBIDDEN,
        gettext_noop("Your AIRisk identity has changed"),
        gettext_noop("It changed while you were connecting, so nothing was saved. Please connect again."),
    ),
    flow.NotPermitted: (
        HTTPStatus.FORBIDDEN,
        gettext_noop("You may not do this any more"),
        gettext_noop("Only staff who may change tokens can obtain the application's own. Nothing was saved."),
    ),
    flow.NoIdentity: (
        HTTPStatus.FORBIDDEN,
        gettext_noop("You have no AIRisk identity yet"),
        gettext_noop("Ask an administrator of this site to enter which AIRisk user you are, then connect again."),
    ),
    AIRiskRefused: (
        HTTPStatus.FORBIDDEN,
        gettext_noop("AIRisk refused the connection"),
        gettext_noop("You can try again. If it happens again, tell an administrator of this site."),
    ),
    AIRiskUnavailable: (
        HTTPStatus.BAD_GATEWAY,
        gettext_noop("AIRisk could not be reached"),
        gettext_noop("It may be down for a moment. Please try again in a few minutes."),
    ),
    AIRiskInvalidResponse: (
        HTTPStatus.BAD_GATEWAY,
        gettext_noop("AIRisk's answer could not be used"),
        gettext_noop("Please try again. If it happens again, tell an administrator of this site."),
    ),
}


class Connection(NamedTuple):
    """Where a user stands with one deployment."""

    deployment: Deployment
    userid: str | None
    token: AIRiskToken | None
    is_usable: bool


@never_cache
@login_required
@require_safe
def connection(request: HttpRequest) -> HttpResponse:
    connections = [offer(request, conf.deployment(alias)) for alias in conf.aliases()]
    return render(request, "airisk_oauth/connection.html", {"connections": connections})


@never_cache
@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def connect(request: HttpRequest, alias: str = conf.DEFAULT_ALIAS) -> HttpResponse:
    deployment = deployment_or_404(alias)
    next_url = _safe_next(request.POST.get("next") or request.GET.get("next"))
    if request.method != "POST":
        context = {"connection": offer(request, deployment), "next": next_url}
        return render(request, "airisk_oauth/connect.html", context)
    return start(request, deployment, next_url=next_url)


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
    except (Http404, protocol.MalformedCallback, flow.CallbackRejected, SignedOut) as error:
        message = "A callback of user %(user_id)s to deployment %(deployment)s was rejected: %(error)s"
        who = request.user.pk
        log(logger, logging.WARNING, "callback.rejected", message, why=error, user_id=who, deployment=alias)
        # Not the site's own page, whose assets may be foreign: code and state stand in this one's address.
        response = _problem(request, error)
    # Where a page of ours is shown at the callback's address, that address goes nowhere else.
    response.headers["Referrer-Policy"] = "no-referrer"
    return response


# A spent state stays spent, whatever happens afterwards in the request.
for _database in settings.DATABASES:
    callback = transaction.non_atomic_requests(using=_database)(callback)


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
        elif not token.has_ended:
            end = localtime(token.expires_at)
            until = f"{date_format(end, 'DATETIME_FORMAT')} {end:%Z}"
            text = _(
                "You are disconnected: this site has forgotten the token. AIRisk cannot revoke it; it ends there by "
                "itself, at %(until)s."
            ) % {"until": until}
        messages.success(request, text, fail_silently=True)
    return redirect(_safe_next(request.POST.get("next")) or "airisk_oauth:connection")


def start(
    request: HttpRequest, deployment: Deployment, *, next_url: str = "", for_application: bool = False
) -> HttpResponse:
    """Send this user's browser to AIRisk, or say why that is not possible."""
    browser = _browser_of(request)
    try:
        _require_own_session(request)
        url = flow.begin(deployment, request.user, browser=browser, next_url=next_url, for_application=for_application)
    except (flow.NoIdentity, SignedOut) as error:
        return _problem(request, error)
    return _ToAIRisk(url)


class _ToAIRisk(HttpResponseRedirect):
    """A redirect whose ``repr`` does not tell the state."""

    def __repr__(self) -> str:
        return "<redirect to AIRisk>"


def _complete(request: HttpRequest, deployment: Deployment, query: Secret) -> HttpResponse:
    if not request.user.is_authenticated or not request.user.is_active:
        raise SignedOut
    _require_own_session(request)
    try:
        connected = flow.complete(deployment, request.user, browser=request.session.get(BROWSER_KEY), query=query)
    except (AIRiskError, flow.IdentityChanged, flow.NotPermitted) as error:
        message = "User %(user_id)s could not be connected to deployment %(deployment)s: %(why)s"
        who, alias = request.user.pk, deployment.alias
        log(logger, logging.WARNING, "connection.failed", message, why=error, user_id=who, deployment=alias)
        return _say_problem(request, error)
    if connected.first:
        messages.success(request, _("You are connected to AIRisk."), fail_silently=True)
    return redirect(_safe_next(connected.pending.next) or "airisk_oauth:connection")


def _browser_of(request: HttpRequest) -> str:
    """Return what this browser's session is bound by, made when a page first offers to connect.

    Made by the click itself, a double click would make two, of which one session keeps but the other.
    """
    browser: str = request.session.setdefault(BROWSER_KEY, secrets.token_urlsafe(16))
    return browser


def _require_own_session(request: HttpRequest) -> None:
    """Refuse a session in which somebody acts as another user: a connection is made by its owner only."""
    user: Any = request.user
    signed_in = request.session.get(SESSION_KEY)
    acting = getattr(user, "is_hijacked", False) or getattr(user, "is_impersonate", False)
    if acting or (signed_in is not None and signed_in != user._meta.pk.value_to_string(user)):
        raise SignedOut


def offer(request: HttpRequest, deployment: Deployment) -> Connection:
    """Return where this user stands, for a page that offers to connect."""
    _browser_of(request)
    user: Any = request.user
    try:
        token = TokenKeeper(deployment, user).check()
    except ConnectionRequired:
        stored = AIRiskToken.objects.primary().owned_by(user.pk, deployment.alias).first()
        return Connection(deployment, deployment.userid_of(user), stored, is_usable=False)
    return Connection(deployment, token.userid, token, is_usable=not token.needs_person)


def _say_problem(request: HttpRequest, error: Exception) -> HttpResponse:
    """Show a problem as a message on the connection page; as a page of its own where the site has no messages."""
    if not hasattr(request, "_messages"):
        return _problem(request, error)
    messages.error(request, told(request, error))
    return redirect("airisk_oauth:connection")


def _problem(request: HttpRequest, error: Exception) -> HttpResponse:
    status, title, text = _words(request, error)
    return render(request, "airisk_oauth/problem.html", {"title": title, "text": text}, status=status)


def told(request: HttpRequest, error: Exception) -> str:
    """Return a problem as one message."""
    _status, title, text = _words(request, error)
    # Translators: title and text of a problem; only the mark and the space between them may differ.
    return _("%(title)s. %(text)s") % {"title": title, "text": text}


def _words(request: HttpRequest, error: Exception) -> tuple[HTTPStatus, str, str]:
    status, title, text = next(_PROBLEMS[kind] for kind in type(error).__mro__ if kind in _PROBLEMS)
    details = f" [{error}]" if isinstance(error, AIRiskError) and request.user.is_staff else ""
    return status, _(title), _(text) + details


def deployment_or_404(alias: str) -> Deployment:
    """Return the deployment that a URL names.

    :raises Http404: there is none of this alias.
    """
    if alias not in conf.aliases():
        raise Http404
    return conf.deployment(alias)


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
