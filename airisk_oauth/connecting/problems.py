"""How a connection can fail to come about, and how a person is told."""

from http import HTTPStatus
from typing import Final

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from .. import conf
from ..exceptions import AIRiskError, AIRiskInvalidResponse, AIRiskRefused, AIRiskUnavailable
from ..oauth.authorization import MalformedCallback
from . import flow


class SignedOut(Exception):
    """Nobody is signed in, or somebody acts in another's name."""


class AtAnotherHost(Exception):
    """AIRisk would send this browser back to a host of this site that it is not at."""


#: How a connection can fail to come about: status, title and text of its page.
PROBLEMS: Final[dict[type[Exception], tuple[HTTPStatus, str, str]]] = {
    SignedOut: (
        HTTPStatus.FORBIDDEN,
        gettext_noop("You are not signed in here"),
        gettext_noop("Sign in with your own account in this browser, then connect again."),
    ),
    AtAnotherHost: (
        HTTPStatus.CONFLICT,
        gettext_noop("This is not the address that AIRisk sends you back to"),
        gettext_noop("Open this site at the address that is registered with AIRisk, then connect there."),
    ),
    MalformedCallback: (
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


def home_url(request: HttpRequest) -> str:
    """Return the path of the connection page, or where a site does without it, of the site."""
    return conf.page_url("connection", request=request) or "/"


def say_problem(request: HttpRequest, error: Exception) -> HttpResponse:
    """Show a problem as a message on the connection page; as a page of its own where the site has no messages."""
    if not hasattr(request, "_messages"):
        return problem_response(request, error)
    messages.error(request, told(request, error))
    return redirect(home_url(request))


def problem_response(request: HttpRequest, error: Exception) -> HttpResponse:
    """Show a problem as a page of its own."""
    status, title, text = _words(request, error)
    context = {"title": title, "text": text, "connection_url": conf.page_url("connection", request=request)}
    return render(request, "airisk_oauth/problem.html", context, status=status)


def told(request: HttpRequest, error: Exception) -> str:
    """Return a problem as one message."""
    _status, title, text = _words(request, error)
    # Translators: title and text of a problem; only the mark and the space between them may differ.
    return _("%(title)s. %(text)s") % {"title": title, "text": text}


def _words(request: HttpRequest, error: Exception) -> tuple[HTTPStatus, str, str]:
    status, title, text = next(PROBLEMS[kind] for kind in type(error).__mro__ if kind in PROBLEMS)
    details = f" [{error}]" if isinstance(error, AIRiskError) and getattr(request.user, "is_staff", False) else ""
    return status, _(title), _(text) + details
