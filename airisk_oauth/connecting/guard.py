"""Decides who has to connect before they may see a view, and tells a browser or a script where to connect."""

from urllib.parse import urlencode

from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponseRedirect, JsonResponse
from django.http.response import HttpResponseBase

from .. import conf
from ..exceptions import ConnectionRequired
from ..tokens.stored import StoredToken


def answer_unconnected(request: HttpRequest, deployment: str) -> HttpResponseBase | None:
    """Return the response to a user who has to sign in or connect first, or ``None`` for a connected user.

    AIRisk is not called: a token that can be renewed silently counts as connected.

    :param deployment: alias.
    :raises ConnectionRequired: the user is not connected, and the site does not include the connect page.
    """
    if not request.user.is_authenticated and not is_script(request):
        return redirect_to_login(request.get_full_path())
    try:
        StoredToken(conf.deployment(deployment), request.user).check()
    except ConnectionRequired as error:
        if error.connect_url is None:
            raise
        return connection_required_response(request, error)
    return None


def connection_required_response(request: HttpRequest, error: ConnectionRequired) -> HttpResponseBase:
    """Redirect a browser to the connect page; tell a script where that page is, as JSON with status 403."""
    if is_script(request):
        body = {"detail": str(error), "connect_url": error.connect_url}
        return JsonResponse(body, status=403)
    # After any other method there is no way back: the browser would come back with GET.
    back = f"?{urlencode({'next': request.get_full_path()})}" if request.method in ("GET", "HEAD") else ""
    return HttpResponseRedirect(f"{error.connect_url}{back}")


def is_script(request: HttpRequest) -> bool:
    """Tell whether a request comes from a script, which is answered with JSON, and not from a browser's navigation."""
    headers = request.headers
    if "X-Requested-With" in headers or "HX-Request" in headers:
        return True
    # By default fetch() accepts "*/*", and EventSource "text/event-stream".
    return headers.get("Sec-Fetch-Mode", "navigate") != "navigate" or "text/html" not in headers.get(
        "Accept", "text/html"
    )
