"""``{% load airisk_oauth %}{% airisk_connection %}``: a user's connection, on one of the site's own pages."""

from typing import Any

from django import template
from django.core.exceptions import ImproperlyConfigured
from django.utils.html import format_html

from .. import conf
from ..connecting.pages import connection_status

register = template.Library()


@register.inclusion_tag("airisk_oauth/_connection.html", takes_context=True)
def airisk_connection(context: template.Context, deployment: str = conf.DEFAULT_ALIAS) -> dict[str, Any]:
    """Show the signed-in user's connection to a deployment, with buttons to connect and disconnect.

    Both buttons lead back to the page. Shows nothing to a visitor who is not signed in.

    :param deployment: alias.

    :raises ImproperlyConfigured: the context has no ``request``, or there is no such deployment.
    """
    request = context.get("request")
    if request is None:
        raise ImproperlyConfigured("{% airisk_connection %} needs the request in the template's context.")
    if not request.user.is_authenticated:
        return {}
    next_url = request.get_full_path() if request.method == "GET" else ""
    status = connection_status(request.user, deployment, request=request, next_url=next_url)
    return {"connection": status, "next": next_url, "csrf_token": context.get("csrf_token")}


@register.simple_tag(takes_context=True)
def airisk_nonce(context: template.Context) -> str:
    """Return the ``nonce`` attribute that a Content-Security-Policy requires of a ``<style>``, or an empty string.

    Works with the nonces of Django (6.0 or later) and django-csp, and needs neither's context processor. Both are made
    when they are first written out, and are false until then.
    """
    request = getattr(context, "request", None) or context.get("request")
    found = (context.get("csp_nonce"), *(getattr(request, name, None) for name in ("csp_nonce", "_csp_nonce")))
    nonce = next((str(nonce) for nonce in found if nonce is not None), "")
    return format_html(' nonce="{}"', nonce) if nonce else ""
