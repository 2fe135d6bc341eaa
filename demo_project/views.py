"""The demo's first pages: a user's connection to AIRisk, and their conversations there."""

from datetime import timedelta
from typing import Any, Final

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.timesince import timesince
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from airisk_oauth.connecting.pages import connection_status
from airisk_oauth.decorators import airisk_required
from airisk_oauth.exceptions import AIRiskError, AIRiskUnavailable, ConnectionRequired
from airisk_oauth.http import AIRiskRequest
from airisk_oauth.oauth.deployment import Deployment

from .conversations import read_conversations
from .models import Event
from .trials import TRIALS

#: How many events and conversations are shown.
EVENTS: Final = 6
CONVERSATIONS: Final = 100
#: How many characters of an unrecognized answer are shown.
RAW: Final = 4000


@never_cache
@require_safe
def home(request: HttpRequest) -> HttpResponse:
    if not request.user.is_authenticated:
        return render(request, "demo/welcome.html")
    connection = connection_status(request.user, request=request)
    token, deployment = connection.token, connection.deployment
    context = {
        **connection._asdict(),
        "trials": TRIALS,
        "events": Event.objects.filter(user=request.user).order_by("-pk")[:EVENTS],
        **(_life(token, deployment) if token and token.expires_at else {}),
    }
    return render(request, "demo/home.html", context)


def _life(token: Any, deployment: Deployment) -> dict[str, Any]:
    """Return the token's lifetime, what is left of it, and how long before its expiry a call renews it."""
    seconds_left = (token.expires_at - timezone.now()).total_seconds()
    renewed_in = token.expires_at - token.renew_at(deployment.renew_before)
    return {
        "life": int((token.expires_at - token.renewed_at).total_seconds()),
        "seconds_left": max(0, int(seconds_left)),
        "left": _duration(seconds_left),
        "renewed_in": _duration(renewed_in.total_seconds()),
    }


def _duration(seconds: float) -> str:
    """Return a duration in words; in seconds if it is so short that Django would say "0 minutes"."""
    if seconds < 120:
        return ngettext("%(seconds)d second", "%(seconds)d seconds", int(seconds)) % {"seconds": seconds}
    now = timezone.now()
    return timesince(now - timedelta(seconds=seconds), now)


@never_cache
@require_safe
@airisk_required
def conversations(request: AIRiskRequest) -> HttpResponse:
    try:
        response = request.airisk.get("/api/GetConversations")
    except ConnectionRequired:
        raise  # The middleware sends the user to connect.
    except AIRiskUnavailable:
        return unavailable(request)
    except AIRiskError as error:
        return trouble(request, _("AIRisk refused this site's request"), error=error)
    if response.status_code == 429 or response.status_code >= 500:
        return unavailable(request)
    if response.status_code != 200:
        title = _("AIRisk answered with status %(status)s") % {"status": response.status_code}
        return trouble(request, title)
    try:
        answer = response.json()
    except (ValueError, RecursionError):
        return trouble(request, _("AIRisk's answer cannot be read"))
    Event.objects.record(request.user.pk, Event.Kind.FETCHED)
    found = read_conversations(answer)
    context = {
        "conversations": found and found[:CONVERSATIONS],
        "more": max(0, len(found or []) - CONVERSATIONS),
        "raw": response.text[:RAW] if found is None else "",
    }
    return render(request, "demo/conversations.html", context)


def unavailable(request: HttpRequest, *, retry: str = "conversations") -> HttpResponse:
    """Say that AIRisk is not available. ``retry`` names the page to try again."""
    context = {"title": _("AIRisk is not available at the moment"), "is_temporary": True, "retry": retry}
    return render(request, "demo/trouble.html", context, status=503)


def trouble(
    request: HttpRequest, title: str, error: AIRiskError | None = None, *, retry: str = "conversations"
) -> HttpResponse:
    """Say what is wrong between this site and AIRisk."""
    return render(request, "demo/trouble.html", {"title": title, "error": error, "retry": retry}, status=502)
