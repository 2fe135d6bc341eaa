"""The host at which a person has to connect: AIRisk sends everybody back to the one that ``REDIRECT_URI`` names."""

from typing import TYPE_CHECKING
from urllib.parse import urlencode, urljoin, urlsplit

from django.conf import settings
from django.core.exceptions import DisallowedHost
from django.http.request import split_domain_port

from .. import conf
from ..oauth.deployment import origin_of

if TYPE_CHECKING:
    from django.http import HttpRequest

    from ..oauth.deployment import Deployment


def right_host_url(request: "HttpRequest", deployment: "Deployment", next_url: str = "") -> str | None:
    """Return the URL of the connect page at ``REDIRECT_URI``'s host, or ``None`` for a browser that may connect here.

    A browser that comes back from AIRisk to another host does not send its cookies there, so it would be signed out.

    :param next_url: path to go to after connecting.
    """
    here, there = _host_of(request), _host_in(deployment.redirect_uri)
    if not here or there in (here, _forwarded_host(request)) or _share_cookies(here, there):
        return None
    origin = _host_in(request.headers.get("Origin", ""))
    if origin == there:
        return None
    # A browser sends Origin with every form. Without it, a bare name is the one that a proxy uses for this server.
    if not origin and (request.method == "POST" or _is_bare(here)):
        return None
    return connect_url(deployment, next_url, request)


def connect_url(deployment: "Deployment", next_url: str = "", request: "HttpRequest | None" = None) -> str | None:
    """Return the URL of the connect page at ``REDIRECT_URI``'s host, or ``None`` where the site does not include it.

    :param next_url: path to go to after connecting.
    :param request: chooses among several inclusions of our pages the one that the request is at.
    """
    page, callback = (conf.page_url(name, deployment.alias, request) for name in ("connect", "callback"))
    if page is None:
        return None
    # A proxy may strip a prefix from the paths that browsers ask for.
    path = urlsplit(deployment.redirect_uri).path
    prefix = path.removesuffix(callback) if callback and path.endswith(callback) else ""
    query = f"?{urlencode({'next': next_url})}" if next_url else ""
    return urljoin(deployment.redirect_uri, f"{prefix}{page}{query}")


def is_own_host(request: "HttpRequest", host: str) -> bool:
    """Tell whether this is the host, with or without a port, that the request was sent to."""
    name = _name(host)
    return bool(name) and name in (_host_of(request), _forwarded_host(request))


def _forwarded_host(request: "HttpRequest") -> str:
    return _name(request.headers.get("X-Forwarded-Host", "").partition(",")[0].strip())


def _host_of(request: "HttpRequest") -> str:
    try:
        return _name(request.get_host())
    except DisallowedHost:
        return ""


def _name(host: str) -> str:
    """Return a host without its port; cookies ignore the port too."""
    return split_domain_port(host)[0].strip("[]")


def _host_in(url: str) -> str:
    origin = origin_of(url)
    return origin[1].removesuffix(".") if origin else ""


def _share_cookies(*hosts: str) -> bool:
    domain = (settings.SESSION_COOKIE_DOMAIN or "").lstrip(".")
    return bool(domain) and all(host == domain or host.endswith(f".{domain}") for host in hosts)


def _is_bare(host: str) -> bool:
    return "." not in host and ":" not in host and host != "localhost"
