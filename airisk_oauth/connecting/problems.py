"""What can go wrong while a person connects, and the pages, messages and JSON that say so."""

from urllib.parse import urlencode

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _

from .. import conf
from ..exceptions import AIRiskError, AIRiskRefused, AIRiskUnavailable
from ..providers.source import SettingUnavailable
from .reasons import Reason
from .scripts import is_script, json_response


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


Problem = ConnectionFailed | AIRiskError | Http404 | SettingUnavailable


def reason_of(problem: Problem) -> Reason:
    """Return the reason that a problem is shown by."""
    if isinstance(problem, ConnectionFailed):
        return problem.reason
    if isinstance(problem, Http404):
        return Reason.UNKNOWN_DEPLOYMENT
    if isinstance(problem, SettingUnavailable):
        return Reason.SETTINGS_UNAVAILABLE
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


def problem_response(
    request: HttpRequest, problem: Problem, *, next_url: str = "", redirect_to: str | None = None
) -> HttpResponse:
    """Answer a browser with a problem's page, and a script with its code and texts as JSON; both with its status.

    :param next_url: path to go to after another try.
    :param redirect_to: URL that htmx is to load in the browser.
    """
    if not is_script(request):
        return problem_page(request, problem, next_url)
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
