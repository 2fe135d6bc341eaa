"""Decides who has to connect before they may see a view, and tells a browser or a script where to connect."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponseRedirect
from django.http.response import HttpResponseBase

from .. import conf
from ..exceptions import ConnectionRequired
from ..tokens.stored import StoredToken
from .problems import with_next
from .scripts import htmx_page, is_script, json_response, keep_from_caches

_ADD = 'Add "{}" to MIDDLEWARE.'
_AUTHENTICATION = "django.contrib.auth.middleware.AuthenticationMiddleware"
_AIRISK = "airisk_oauth.middleware.AIRiskMiddleware"


def answer_unconnected(request: HttpRequest, deployment: str) -> HttpResponseBase | None:
    """Return the response to a user who has to sign in or connect first, or ``None`` for a connected user.

    AIRisk is not called: a token that can be renewed silently counts as connected.

    :param deployment: alias.
    :raises ConnectionRequired: the user is not connected, and the site does not include the connect page.
    :raises ImproperlyConfigured: ``AuthenticationMiddleware`` is missing.
    """
    if not hasattr(request, "user"):
        raise ImproperlyConfigured(f"airisk_required needs request.user. {_ADD.format(_AUTHENTICATION)}")
    if not request.user.is_authenticated and not is_script(request):
        response = redirect_to_login(request.get_full_path())
        keep_from_caches(response)
        return response
    try:
        StoredToken(conf.deployment(deployment), request.user).check(before_call=True)
    except ConnectionRequired as error:
        if error.connect_url is None:
            raise
        return connection_required_response(request, error)
    return None


@contextmanager
def middleware_required(request: HttpRequest) -> Iterator[None]:
    """Run a view, and say so if ``request.airisk`` is missing because the middleware is.

    :raises ImproperlyConfigured: the view uses ``request.airisk``, and ``AIRiskMiddleware`` is missing.
    """
    try:
        yield
    except AttributeError as error:
        if error.name != "airisk" or hasattr(request, "airisk"):
            raise
        raise ImproperlyConfigured(f"This view needs request.airisk. {_ADD.format(_AIRISK)}") from error


def connection_required_response(request: HttpRequest, error: ConnectionRequired) -> HttpResponseBase:
    """Redirect a browser to the connect page; tell a script where that page is, as JSON with status 403.

    htmx is also told to load the connect page in the browser, and to come back to the page that made the request.
    """
    response: HttpResponseBase
    if is_script(request):
        body = {"detail": str(error), "connect_url": error.connect_url}
        page = with_next(str(error.connect_url), htmx_page(request))
        response = json_response(request, body, status=HTTPStatus.FORBIDDEN, redirect_to=page)
    else:
        # After any other method there is no way back: the browser would come back with GET.
        back = request.get_full_path() if request.method in ("GET", "HEAD") else ""
        response = HttpResponseRedirect(with_next(str(error.connect_url), back))
    keep_from_caches(response)
    return response
