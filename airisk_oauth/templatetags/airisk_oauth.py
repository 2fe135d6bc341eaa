"""``{% load airisk_oauth %}{% airisk_connection %}``: a user's connection on a page of the site's own."""

from typing import Any

from django import template
from django.core.exceptions import ImproperlyConfigured
from django.utils.html import format_html

from .. import conf
from ..connecting.pages import connection_status

register = template.Library()


@register.inclusion_tag("airisk_oauth/_connection.html", takes_context=True)
def airisk_connection(context: template.Context, deployment: str = conf.DEFAULT_ALIAS) -> dict[str, Any]:
    """Show where the signed-in user stands with a deployment, with buttons to connect and disconnect.

    Both lead back to the page. For somebody who is not signed in there is nothing to show.

    :raises ImproperlyConfigured: the context has no ``request``, or there is no such deployment.
    """
    request = context.get("request")
    if request is None:
        raise ImproperlyConfigured("{% airisk_connection %} needs the request in the template's context.")
    if not request.user.is_authenticated:
        return {}
    next_url = request.get_full_path() if request.method == "GET" else ""
    return {
        "connection": connection_status(request, conf.deployment(deployment), next_url),
        "next": next_url,
        "csrf_token": context.get("csrf_token"),
    }


@register.simple_tag(takes_context=True)
def airisk_nonce(context: template.Context) -> str:
    """Return the attribute that a Content-Security-Policy asks of a ``<style>``, empty where there is no policy.

    A nonce that nothing has used yet is false, both Django's (from 6.0 on) and django-csp's; writing it makes it, and
    only one that was made comes into the policy. Neither needs its context processor.
    """
    request = getattr(context, "request", None) or context.get("request")
    found = (context.get("csp_nonce"), *(getattr(request, name, None) for name in ("csp_nonce", "_csp_nonce")))
    nonce = next((str(nonce) for nonce in found if nonce is not None), "")
    return format_html(' nonce="{}"', nonce) if nonce else ""
