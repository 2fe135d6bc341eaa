"""The demo's own middleware."""

from collections.abc import Callable
from urllib.parse import urlsplit

from django.http import HttpRequest, HttpResponseRedirect
from django.http.response import HttpResponseBase

from airisk_oauth import conf

_THIS_MACHINE = ("127.0.0.1", "localhost")


def one_address(get_response: Callable[[HttpRequest], HttpResponseBase]) -> Callable[[HttpRequest], HttpResponseBase]:
    """Redirect a browser from ``localhost`` to ``127.0.0.1``, or the other way round, to the host in ``REDIRECT_URI``.

    To a browser these are different sites: it would come back from AIRisk without its session.
    """
    site = urlsplit(conf.deployment().redirect_uri)
    others = {f"{name}:{site.port}" for name in _THIS_MACHINE if site.hostname in _THIS_MACHINE} - {site.netloc}

    def middleware(request: HttpRequest) -> HttpResponseBase:
        if request.get_host() in others:
            return HttpResponseRedirect(f"{site.scheme}://{site.netloc}{request.get_full_path()}")
        return get_response(request)

    return middleware
