"""What several pages share: who may see them, a user's connection status, and the redirect to AIRisk."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django.contrib.auth.decorators import login_not_required, login_required
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.shortcuts import redirect

from .. import conf
from ..oauth.deployment import Deployment
from ..providers.source import SettingUnavailable
from . import browsers, flow, hosts, impersonation
from .problems import ConnectionFailed, home_url, problem_response
from .reasons import Reason
from .scripts import is_script, json_response, keep_from_caches
from .status import ConnectionStatus, connection_status

__all__ = [
    "ConnectionStatus",
    "connection_status",
    "deployment_or_404",
    "for_browsers_and_scripts",
    "redirect_to_airisk",
]


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
        return problem_response(request, ConnectionFailed(Reason.SIGNED_OUT), next_url=next_url)
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
        return problem_response(request, error, next_url=next_url)
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
    :raises SettingUnavailable: the function that returns the deployments fails.
    """
    if conf.is_unknown(alias):
        raise Http404
    return conf.deployment(alias)


def for_browsers_and_scripts(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponseBase]:
    """Let only signed-in users see a page of ours that has an HTML and a JSON form.

    A browser is redirected to the login page. A script gets every problem as JSON, and is never redirected; that is
    why ``LoginRequiredMiddleware`` has to leave the page alone.
    """

    @login_required
    def for_browsers(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            return view(request, *args, **kwargs)
        except SettingUnavailable as problem:
            return problem_response(request, problem)

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
        except (Http404, SettingUnavailable) as problem:
            response = problem_response(request, problem)
    else:
        response = problem_response(request, ConnectionFailed(Reason.SIGNED_OUT))
    if "HX-Boosted" in request.headers and "HX-Redirect" not in response.headers:
        # The person clicked a link or a button of a page, and would be shown the JSON.
        is_safe = request.method in ("GET", "HEAD")
        response.headers["HX-Redirect"] = request.get_full_path() if is_safe else home_url(request)
    return response
