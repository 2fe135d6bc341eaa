"""Trials: with one click a visitor makes the sandbox misbehave, and sees how this site copes."""

from dataclasses import replace
from typing import Any, Final, NamedTuple

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_POST

from airisk_oauth.models import AIRiskToken
from airisk_oauth.refresh import renew_chosen
from airisk_oauth.sandbox.world import Switches, world


class Trial(NamedTuple):
    """A way in which AIRisk can misbehave.

    :ivar label: the text of its button.
    :ivar expect: what will happen.
    :ivar status: what every page shows while it lasts; empty if it does not last.
    :ivar expires_tokens: whether it begins with AIRisk refusing all tokens that were issued so far.
    """

    name: str
    label: Any
    expect: Any
    status: Any
    switches: Switches
    expires_tokens: bool = False


TRIALS: Final = (
    Trial(
        "expire",
        _("Expire the token"),
        _("AIRisk refuses the token, so the site gets a new one and repeats the call. Only the list here shows it."),
        "",
        Switches(),
        expires_tokens=True,
    ),
    Trial(
        "down",
        _("Take AIRisk down"),
        _("You see a page that says so, and you stay connected."),
        _("AIRisk is down."),
        Switches(outage=True),
    ),
    Trial(
        "slow",
        _("Make AIRisk slow"),
        _("Every answer takes three seconds. Pages that do not call AIRisk stay as fast as ever."),
        _("AIRisk is slow."),
        Switches(latency=3),
    ),
    Trial(
        "login",
        _("Show a login page"),
        _("AIRisk requires a sign-in in a browser, so the site cannot renew the token. It asks you to connect again."),
        _("AIRisk shows a login page."),
        Switches(login_page=True),
        expires_tokens=True,
    ),
    Trial(
        "short",
        _("Make tokens short-lived"),
        _("Tokens expire after a minute. Watch it on this page, then open Conversations to renew the token."),
        _("AIRisk's tokens expire after a minute."),
        Switches(token_life=60),
        expires_tokens=True,
    ),
)


def status() -> Any:
    """Return how AIRisk misbehaves, or an empty string if it does not."""
    if world.switches == Switches():
        return ""
    found = [trial.status for trial in TRIALS if trial.switches == world.switches]
    return found[0] if found else _("AIRisk behaves as set by the sandbox switches.")


@require_POST
@login_required
def begin(request: HttpRequest, name: str) -> HttpResponse:
    """Start a trial, and show what happens to the page of conversations."""
    trial = next((trial for trial in TRIALS if trial.name == name), None)
    if trial is None or not settings.DEBUG:
        raise Http404
    world.switches = replace(trial.switches)
    if trial.expires_tokens:
        world.end_all_tokens()
    return redirect("conversations")


@require_POST
@login_required
def fix(request: HttpRequest) -> HttpResponse:
    """End the trial: AIRisk works again, and so do the connections that were lost because of it."""
    if not settings.DEBUG:
        raise Http404
    world.switches = Switches()
    renew_chosen(AIRiskToken.objects.filter(failing_since__isnull=False))
    return redirect("home")
