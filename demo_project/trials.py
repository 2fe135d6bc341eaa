"""What a visitor can do to AIRisk with one click, to see how this site copes; the sandbox plays along."""

from dataclasses import replace
from typing import Any, Final, NamedTuple

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_POST

from airisk_oauth.sandbox.world import Switches, world


class Trial(NamedTuple):
    """A trial: what its button says, what to expect of it, and what is said as long as it lasts."""

    name: str
    label: Any
    expect: Any
    state: Any
    switches: Switches
    ends_tokens: bool = False


TRIALS: Final = (
    Trial(
        "end",
        _("End the token"),
        _("AIRisk refuses it; the site gets another one and asks again. Only the list here tells."),
        "",
        Switches(),
        ends_tokens=True,
    ),
    Trial(
        "down",
        _("Take AIRisk down"),
        _("A page that says so, and you stay connected."),
        _("AIRisk is down."),
        Switches(outage=True),
    ),
    Trial(
        "slow",
        _("Make AIRisk slow"),
        _("Three seconds for every answer. Pages that ask AIRisk nothing are as quick as ever."),
        _("AIRisk is slow."),
        Switches(latency=3),
    ),
    Trial(
        "login",
        _("Show a login page"),
        _("AIRisk wants to see you: the site cannot renew the token, and sends you to connect again."),
        _("AIRisk shows a login page, and has ended your token."),
        Switches(login_page=True),
        ends_tokens=True,
    ),
    Trial(
        "short",
        _("Give tokens a minute"),
        _("Watch it end on this page, and open Conversations to have it renewed."),
        _("AIRisk's tokens live for a minute."),
        Switches(token_life=60),
        ends_tokens=True,
    ),
)


def under_way() -> Any:
    """Return what is said of the trial that goes on; an empty string on a good day."""
    if world.switches == Switches():
        return ""
    states = [trial.state for trial in TRIALS if trial.switches == world.switches]
    return states[0] if states else _("AIRisk behaves as the sandbox switches say.")


@require_POST
@login_required
def begin(request: HttpRequest, name: str) -> HttpResponse:
    """Let AIRisk have the kind of day that a trial is about, and show what becomes of the conversations."""
    trial = next((trial for trial in TRIALS if trial.name == name), None)
    if trial is None or not settings.DEBUG:
        raise Http404
    world.switches = replace(trial.switches)
    if trial.ends_tokens:
        world.end_all_tokens()
    return redirect("conversations")


@require_POST
@login_required
def mend(request: HttpRequest) -> HttpResponse:
    if not settings.DEBUG:
        raise Http404
    world.switches = Switches()
    return redirect("home")
