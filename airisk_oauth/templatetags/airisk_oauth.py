"""``{% load airisk_oauth %}{% airisk_connection %}``: a user's connection on a page of the site's own."""

from typing import Any

from django import template
from django.core.exceptions import ImproperlyConfigured

from .. import conf, views

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
    return {
        "connection": views.offer(request, conf.deployment(deployment)),
        "next": request.get_full_path() if request.method == "GET" else "",
        "csrf_token": context.get("csrf_token"),
    }
