"""What several pages share: who may see them, a user's connection status, and the redirect to AIRisk."""

from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, TypedDict
from urllib.parse import urlsplit

from django.contrib.auth.decorators import login_not_required, login_required
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.shortcuts import redirect

from .. import conf
from ..exceptions import ConnectionRequired
from ..models import AIRiskToken
from ..oauth.deployment import Deployment
from ..tokens.stored import StoredToken
from ..userids import userid_of
from . import browsers, flow, hosts, impersonation
from .problems import ConnectionFailed, Reason, home_url, problem_response
from .scripts import is_script, json_response, keep_from_caches


class ConnectionJSON(TypedDict):
    """A user's connection to one deployment, as scripts see it.

    :ivar expires_at: when the stored token expires, in ISO 8601 with an offset; ``None`` without a token or an expiry.
    :ivar needs_person: a token is stored, but the user has to connect again.
    """

    deployment: str
    connected: bool
    userid: str | None
    expires_at: str | None
    needs_person: bool
    connect_url: str | None


class ConnectionStatus(NamedTuple):
    """A user's connection to one deployment.

    :ivar userid: who the user is on AIRisk, or ``None``.
    :ivar token: the stored token, or ``None`` for a user who never connected.
    :ivar is_connected: whether calls can be made with the token, or after a silent renewal. False where the user has to
        connect, even while an old token is still valid.
    :ivar connect_url: path of the page to connect on, or ``None`` where the site does not include it.
    :ivar disconnect_url: path to post to in order to disconnect, or ``None`` where the site does not include it.
    :ivar right_host_url: URL of the page to connect on at ``REDIRECT_URI``'s host, for a browser that is at another
        host; otherwise ``None``.
    """

    deployment: Deployment
    userid: str | None
    token: AIRiskToken | None
    is_connected: bool
    connect_url: str | None
    disconnect_url: str | None
    right_host_url: str | None

    @property
    def right_host(self) -> str:
        return urlsplit(self.right_host_url or "").netloc

    def as_json(self) -> ConnectionJSON:
        expires_at = None if self.token is None else self.token.expires_at
        return {
            "deployment": self.deployment.alias,
            "connected": self.is_connected,
            "userid": self.userid,
            "expires_at": None if expires_at is None else expires_at.isoformat(),
            "needs_person": self.token is not None and not self.is_connected,
            "connect_url": self.connect_url,
        }


def connection_status(
    user: Any, deployment: str = conf.DEFAULT_ALIAS, *, request: HttpRequest | None = None, next_url: str = ""
) -> ConnectionStatus:
    """Return this user's connection status, for a page with a Connect button. AIRisk is not called.

    :param deployment: alias.
    :param request: the request for that page. The addresses of the pages depend on it where a site includes them more
        than once, and without it ``right_host_url`` is ``None``.
    :param next_url: path to go to after connecting at another host.
    :raises ImproperlyConfigured: there is no such deployment, or one of its settings is wrong.
    """
    options = conf.deployment(deployment)
    connect_url, disconnect_url = (conf.page_url(name, deployment, request) for name in ("connect", "disconnect"))
    right_host_url = None if request is None else hosts.right_host_url(request, options, next_url)
    try:
        token = StoredToken(options, user).check()
    except ConnectionRequired:
        stored = AIRiskToken.objects.primary().owned_by(user.pk, deployment).first()
        userid, is_connected = userid_of(options, user), False
    else:
        stored, userid, is_connected = token, token.userid, not token.needs_person
    return ConnectionStatus(options, userid, stored, is_connected, connect_url, disconnect_url, right_host_url)


def redirect_to_airisk(
    request: HttpRequest, deployment: Deployment, *, next_url: str = "", for_application: bool = False
) -> HttpResponse:
    """Start a flow and redirect this user's browser to AIRisk, or show a page that says why that is not possible.

    A browser at another host than ``REDIRECT_URI``'s is redirected to the connect page there first. A script cannot
    follow a redirect to another origin: it gets the URL, or the problem, as JSON.

    :param next_url: path to go to afterwards.
    :param for_application: obtain the application's token, not the user's.
    """
    if impersonation.is_impersonated(request):
        return problem_response(request, ConnectionFailed(Reason.SIGNED_OUT))
    right_host_url = hosts.right_host_url(request, deployment, next_url)
    if right_host_url is not None:
        if for_application or is_script(request):
            # The application's token is obtained from the admin, and the connect page is for a user's own.
            page = None if for_application else right_host_url
            return problem_response(request, ConnectionFailed(Reason.AT_ANOTHER_HOST), redirect_to=page)
        return redirect(right_host_url)
    value = browsers.cookie_value_or_new(request)
    browser = browsers.binding(request, value)
    try:
        url = flow.begin(deployment, request.user, browser=browser, next_url=next_url, for_application=for_application)
    except ConnectionFailed as error:
        return problem_response(request, error)
    response: HttpResponse
    if is_script(request):
        response = json_response(request, {"authorization_url": url}, redirect_to=url)
    else:
        response = _RedirectToAIRisk(url)
    browsers.set_cookie(response, value)
    return response


class _RedirectToAIRisk(HttpResponseRedirect):
    """A redirect whose ``repr`` does not show the state."""

    def __repr__(self) -> str:
        return "<redirect to AIRisk>"


def deployment_or_404(alias: str) -> Deployment:
    """Return the deployment that a URL names.

    :raises Http404: there is no deployment with this alias.
    """
    if alias not in conf.aliases():
        raise Http404
    return conf.deployment(alias)


def for_browsers_and_scripts(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponseBase]:
    """Let only signed-in users see a page of ours that has an HTML and a JSON form.

    A browser is redirected to the login page. A script gets every problem as JSON, and is never redirected; that is
    why ``LoginRequiredMiddleware`` has to leave the page alone.
    """
    for_browsers = login_required(view)

    @login_not_required
    @wraps(view)
    def wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if is_script(request):
            response = _answer_script(view, request, *args, **kwargs)
        else:
            response = for_browsers(request, *args, **kwargs)
        keep_from_caches(response)
        return response

    return wrapper


def _answer_script(view: Callable[..., HttpResponse], request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
    if request.user.is_authenticated:
        try:
            response = view(request, *args, **kwargs)
        except Http404 as problem:
            response = problem_response(request, problem)
    else:
        response = problem_response(request, ConnectionFailed(Reason.SIGNED_OUT))
    if "HX-Boosted" in request.headers and "HX-Redirect" not in response.headers:
        # The person clicked a link or a button of a page, and would be shown the JSON.
        is_safe = request.method in ("GET", "HEAD")
        response.headers["HX-Redirect"] = request.get_full_path() if is_safe else home_url(request)
    return response
