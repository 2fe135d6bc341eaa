"""Tells scripts from browsers: scripts are answered with JSON, and htmx is told where to send the browser."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase
from django.utils.cache import add_never_cache_headers, patch_vary_headers
from django.utils.encoding import iri_to_uri

from .hosts import is_own_host

#: The request headers by which browsers and scripts get different answers at the same URL.
_HEADERS: Final = ("Accept", "Sec-Fetch-Mode", "X-Requested-With", "HX-Request")


def is_script(request: HttpRequest) -> bool:
    """Tell whether a request comes from a script, which is answered with JSON, and not from a browser's navigation."""
    headers = request.headers
    if "HX-History-Restore-Request" in headers:
        # After "Back", htmx shows whatever it is given as the page.
        return False
    if "X-Requested-With" in headers or "HX-Request" in headers:
        return True
    if headers.get("Sec-Fetch-Mode", "navigate") != "navigate":
        return True
    # By default fetch() accepts "*/*", and EventSource "text/event-stream".
    accepted = headers.get("Accept")
    if accepted is not None:
        return "text/html" not in accepted.lower()
    # No browser leaves Accept out. Programs do, such as those in Go, and name themselves; Django's test client, which
    # plays a browser, leaves out both.
    return not headers.get("User-Agent", "Mozilla/").startswith("Mozilla/")


def json_response(
    request: HttpRequest,
    body: Mapping[str, object],
    *,
    status: int = HTTPStatus.OK,
    redirect_to: str | None = None,
) -> JsonResponse:
    """Answer a script with JSON.

    :param redirect_to: URL that htmx is to load in the browser; ignored for other scripts.
    """
    response = JsonResponse(body, status=status)
    if redirect_to is not None and "HX-Request" in request.headers:
        # As Django does for a redirect: the URL on AIRisk is a Secret, and WSGI servers refuse subclasses of str.
        response.headers["HX-Redirect"] = iri_to_uri(redirect_to)
    return response


def keep_from_caches(response: HttpResponseBase) -> None:
    """Keep caches from giving a browser what a script was answered, or a script what a browser was shown."""
    add_never_cache_headers(response)
    patch_vary_headers(response, _HEADERS)


def htmx_page(request: HttpRequest) -> str:
    """Return the path, with query and fragment, of the page that an htmx request was made from.

    Empty if the request does not name a page of this site.
    """
    try:
        _scheme, host, path, query, fragment = urlsplit(request.headers.get("HX-Current-URL", ""))
    except ValueError:
        return ""
    is_here = bool(host) and (request.headers.get("Sec-Fetch-Site") == "same-origin" or is_own_host(request, host))
    return urlunsplit(("", "", path, query, fragment)) if is_here else ""
