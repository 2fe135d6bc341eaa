"""Who has to connect before a view, and how a browser or a script is sent to connect."""

from urllib.parse import urlencode

from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponseRedirect, JsonResponse
from django.http.response import HttpResponseBase

from .. import conf
from ..exceptions import ConnectionRequired
from ..tokens.stored import StoredToken


def answer_unconnected(request: HttpRequest, deployment: str) -> HttpResponseBase | None:
    """Return the response for a user who has to connect first, or ``None`` for one who is connected."""
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
    """Send a browser to the page to connect on, and tell a script, with status 403, where that is."""
    if is_script(request):
        body = {"detail": str(error), "connect_url": error.connect_url}
        return JsonResponse(body, status=403)
    # Coming back to what was a POST would be a GET of something that may have no page.
    back = f"?{urlencode({'next': request.get_full_path()})}" if request.method in ("GET", "HEAD") else ""
    return HttpResponseRedirect(f"{error.connect_url}{back}")


def is_script(request: HttpRequest) -> bool:
    """Tell a script that wants JSON from a browser that shows pages."""
    headers = request.headers
    if "X-Requested-With" in headers or "HX-Request" in headers:
        return True
    # fetch() and EventSource say no more than "*/*" and "text/event-stream" by themselves.
    return headers.get("Sec-Fetch-Mode", "navigate") != "navigate" or "text/html" not in headers.get(
        "Accept", "text/html"
    )
