"""``{% load airisk_oauth %}``: a user's connection, or a line where it is lost, on one of the site's own pages."""

from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.template import Context, Library
from django.utils.html import format_html

from .. import conf
from ..connecting.lost import lost_connection
from ..connecting.status import connection_status
from ..providers.source import SettingUnavailable

if TYPE_CHECKING:
    from django.http import HttpRequest

register = Library()


@register.inclusion_tag("airisk_oauth/_connection.html", takes_context=True)
def airisk_connection(context: Context, deployment: str = conf.DEFAULT_ALIAS) -> dict[str, Any]:
    """Show the signed-in user's connection to a deployment, with buttons to connect and disconnect.

    Both buttons lead back to the page. Shows nothing to a visitor who is not signed in, or while a function that
    returns the deployments fails.

    :param deployment: alias.
    :raises ImproperlyConfigured: the context has no ``request``, or there is no such deployment.
    """
    request = _request(context, "airisk_connection")
    if not request.user.is_authenticated:
        return {}
    next_url = _here(request)
    try:
        status = connection_status(request.user, deployment, request=request, next_url=next_url)
    except SettingUnavailable:
        return {}
    return {"connection": status, "next": next_url, "csrf_token": context.get("csrf_token")}


@register.inclusion_tag("airisk_oauth/_notice.html", takes_context=True)
def airisk_notice(context: Context, deployment: str = conf.DEFAULT_ALIAS) -> dict[str, Any]:
    """Show a line with a Connect button to a signed-in user whose connection is lost, and nothing else ever.

    The button leads back to the page.

    :param deployment: alias.
    :raises ImproperlyConfigured: the context has no ``request``, or there is no such deployment.
    """
    request = _request(context, "airisk_notice")
    status = lost_connection(request, deployment)
    if status is None:
        return {}
    return {"connection": status, "next": _here(request), "csrf_token": context.get("csrf_token")}


@register.simple_tag(takes_context=True)
def airisk_nonce(context: Context) -> str:
    """Return the ``nonce`` attribute that a Content-Security-Policy requires of a ``<style>``, or an empty string.

    Works with the nonces of Django (6.0 or later) and django-csp, and needs neither's context processor. Both are made
    when they are first written out, and are false until then.
    """
    request = getattr(context, "request", None) or context.get("request")
    found = (context.get("csp_nonce"), *(getattr(request, name, None) for name in ("csp_nonce", "_csp_nonce")))
    nonce = next((str(nonce) for nonce in found if nonce is not None), "")
    return format_html(' nonce="{}"', nonce) if nonce else ""


def _request(context: Context, tag: str) -> "HttpRequest":
    request: HttpRequest | None = context.get("request")
    if request is None:
        raise ImproperlyConfigured(f"{{% {tag} %}} needs the request in the template's context.")
    return request


def _here(request: "HttpRequest") -> str:
    """Return the path to come back to after connecting: after any other method than GET, there is none."""
    return request.get_full_path() if request.method == "GET" else ""
