"""What can go wrong while a person connects, and the pages, messages and JSON that say so."""

from enum import Enum
from http import HTTPStatus
from typing import Final, Self
from urllib.parse import urlencode

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from .. import conf
from ..exceptions import AIRiskError, AIRiskRefused, AIRiskUnavailable
from .scripts import is_script, json_response

_BROKEN_LINK: Final = (
    gettext_noop("This link does not work"),
    gettext_noop(
        "It is incomplete or was changed on the way. Nothing has happened; you can connect again. If this happens "
        "again, tell an administrator of this site."
    ),
)


class Reason(Enum):
    """Why a person could not be connected.

    The value is a code that never changes. The status is that of the problem's page, whose title and text are in
    English here, and translated when they are shown. Scripts get code, status and both texts as JSON.
    """

    SIGNED_OUT = (
        "signed_out",
        HTTPStatus.FORBIDDEN,
        gettext_noop("You are not signed in here"),
        gettext_noop("Sign in with your own account in this browser, then connect again."),
    )
    AT_ANOTHER_HOST = (
        "at_another_host",
        HTTPStatus.CONFLICT,
        gettext_noop("This is not the address that AIRisk sends you back to"),
        gettext_noop("Open this site at the address that is registered with AIRisk, then connect there."),
    )
    NO_IDENTITY = (
        "no_identity",
        HTTPStatus.FORBIDDEN,
        gettext_noop("You have no AIRisk identity yet"),
        gettext_noop("Ask an administrator of this site to enter which AIRisk user you are, then connect again."),
    )
    MALFORMED_CALLBACK = "malformed_callback", HTTPStatus.BAD_REQUEST, *_BROKEN_LINK
    UNKNOWN_DEPLOYMENT = "unknown_deployment", HTTPStatus.NOT_FOUND, *_BROKEN_LINK
    CALLBACK_REJECTED = (
        "callback_rejected",
        HTTPStatus.FORBIDDEN,
        gettext_noop("This connection was not started here"),
        gettext_noop(
            "You may have signed out and in again meanwhile, or started it in another browser, with another account, "
            "or too long ago. Nothing has happened; you can connect again."
        ),
    )
    STATE_EXPIRED = (
        "state_expired",
        HTTPStatus.GONE,
        gettext_noop("That took too long"),
        gettext_noop("A connection has to be finished within ten minutes. Please connect again."),
    )
    STATE_SPENT = (
        "state_spent",
        HTTPStatus.GONE,
        gettext_noop("This connection was already tried"),
        gettext_noop("It did not succeed, and cannot be used a second time. Please connect again."),
    )
    IDENTITY_CHANGED = (
        "identity_changed",
        HTTPStatus.FORBIDDEN,
        gettext_noop("Your AIRisk identity has changed"),
        gettext_noop("It changed while you were connecting, so nothing was saved. Please connect again."),
    )
    NOT_PERMITTED = (
        "not_permitted",
        HTTPStatus.FORBIDDEN,
        gettext_noop("You no longer have permission to do this"),
        gettext_noop(
            "Only staff with permission to change tokens can obtain the application's token. Nothing was saved."
        ),
    )
    ACCESS_DENIED = (
        "access_denied",
        HTTPStatus.FORBIDDEN,
        gettext_noop("You did not allow the connection"),
        gettext_noop("Nothing was saved. If you did allow it on AIRisk, tell an administrator of this site."),
    )
    AIRISK_REFUSED = (
        "airisk_refused",
        HTTPStatus.FORBIDDEN,
        gettext_noop("AIRisk refused the connection"),
        gettext_noop("You can try again. If it happens again, tell an administrator of this site."),
    )
    AIRISK_UNAVAILABLE = (
        "airisk_unavailable",
        HTTPStatus.BAD_GATEWAY,
        gettext_noop("AIRisk could not be reached"),
        gettext_noop("It may be down for a moment. Please try again in a few minutes."),
    )
    AIRISK_INVALID_RESPONSE = (
        "airisk_invalid_response",
        HTTPStatus.BAD_GATEWAY,
        gettext_noop("AIRisk's answer could not be used"),
        gettext_noop("Please try again. If it happens again, tell an administrator of this site."),
    )

    status: HTTPStatus
    title: str
    text: str

    def __new__(cls, code: str, status: HTTPStatus, title: str, text: str) -> Self:
        reason = object.__new__(cls)
        reason._value_ = code
        reason.status, reason.title, reason.text = status, title, text
        return reason

    @property
    def rejects_callback(self) -> bool:
        """Whether a callback with this problem is turned away: AIRisk is not called, and nothing is stored."""
        return self in _REJECTING_CALLBACKS


_REJECTING_CALLBACKS: Final = frozenset(
    {
        Reason.SIGNED_OUT,
        Reason.MALFORMED_CALLBACK,
        Reason.UNKNOWN_DEPLOYMENT,
        Reason.CALLBACK_REJECTED,
        Reason.STATE_EXPIRED,
        Reason.STATE_SPENT,
    }
)


class ConnectionFailed(Exception):
    """A person could not be connected, for a reason that is not AIRisk's.

    :ivar reason: a :class:`Reason`.
    """

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason

    @property
    def log_fields(self) -> dict[str, str]:
        # An alert can tell the reasons from each other by this field, as it can AIRisk's errors.
        return {"error": self.reason.value.title().replace("_", "")}

    def __str__(self) -> str:
        return str(self.reason.value).replace("_", " ")


Problem = ConnectionFailed | AIRiskError | Http404


def reason_of(problem: Problem) -> Reason:
    """Return the reason that a problem is shown by."""
    if isinstance(problem, ConnectionFailed):
        return problem.reason
    if isinstance(problem, Http404):
        return Reason.UNKNOWN_DEPLOYMENT
    if isinstance(problem, AIRiskRefused):
        # RFC 6749, section 4.1.2.1.
        is_denied = problem.reason.partition(":")[0] == "access_denied"
        return Reason.ACCESS_DENIED if is_denied else Reason.AIRISK_REFUSED
    if isinstance(problem, AIRiskUnavailable):
        return Reason.AIRISK_UNAVAILABLE
    return Reason.AIRISK_INVALID_RESPONSE


def home_url(request: HttpRequest) -> str:
    """Return the path of the connection page, or of the site's front page where the site does not include ours."""
    return conf.page_url("connection", request=request) or "/"


def problem_page(request: HttpRequest, problem: Problem, next_url: str = "") -> HttpResponse:
    """Show a problem as a page of its own, with its status.

    :param next_url: path to go to after another try.
    """
    title, text = _describe(request, problem)
    connection_url = conf.page_url("connection", request=request)
    context = {"title": title, "text": text, "connection_url": connection_url and with_next(connection_url, next_url)}
    return render(request, "airisk_oauth/problem.html", context, status=reason_of(problem).status)


def problem_response(request: HttpRequest, problem: Problem, *, redirect_to: str | None = None) -> HttpResponse:
    """Answer a browser with a problem's page, and a script with its code and texts as JSON; both with its status.

    :param redirect_to: URL that htmx is to load in the browser.
    """
    if not is_script(request):
        return problem_page(request, problem)
    reason = reason_of(problem)
    is_unknown = reason is Reason.UNKNOWN_DEPLOYMENT
    # The texts of this reason are about a callback, and scripts make none.
    detail = _("This site has no AIRisk deployment of that name.") if is_unknown else problem_message(request, problem)
    body = {"code": reason.value, "detail": detail}
    return json_response(request, body, status=reason.status, redirect_to=redirect_to)


def problem_on_connection_page(request: HttpRequest, problem: Problem, next_url: str = "") -> HttpResponse:
    """Redirect to the connection page and show a problem there as a message; without messages, show its own page.

    :param next_url: path to go to after another try.
    """
    if not hasattr(request, "_messages"):
        return problem_page(request, problem, next_url)
    messages.error(request, problem_message(request, problem))
    return redirect(with_next(home_url(request), next_url))


def with_next(url: str, next_url: str) -> str:
    """Return the URL of a page that goes on to another one, if any, once the user is connected."""
    return f"{url}?{urlencode({'next': next_url})}" if next_url else url


def problem_message(request: HttpRequest, problem: Problem) -> str:
    """Return a problem's title and text as one message."""
    title, text = _describe(request, problem)
    # Translators: title and text of a problem; only the mark and the space between them may differ.
    return _("%(title)s. %(text)s") % {"title": title, "text": text}


def _describe(request: HttpRequest, problem: Problem) -> tuple[str, str]:
    """Return a problem's title and text; staff also see what AIRisk answered."""
    reason = reason_of(problem)
    is_staff = getattr(request.user, "is_staff", False)
    details = f" [{problem}]" if isinstance(problem, AIRiskError) and is_staff else ""
    return _(reason.title), _(reason.text) + details
