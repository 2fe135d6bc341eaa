"""The page where a developer sets how AIRisk behaves."""

from dataclasses import asdict

from django import forms
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.utils.translation import gettext_lazy as _
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.http import require_http_methods, require_safe

from .endpoint import sandbox_view
from .registry import clients, redirect_uris
from .world import Switches, world

_LATEST = 25
_TEN_YEARS = 315_360_000
#: What each button has done.
_DONE = {
    "save": _("AIRisk now behaves as set here."),
    "end_all_tokens": _("AIRisk now refuses all tokens that it has issued so far."),
    "reset": _("The switches, the conversations and the received requests are reset."),
}


class SwitchesForm(forms.Form):
    """A field for each attribute of `Switches`, with the same name."""

    latency = forms.FloatField(
        label=_("Latency"), help_text=_("Seconds before each answer."), min_value=0, max_value=120
    )
    outage = forms.BooleanField(
        label=_("Outage"), help_text=_("Every endpoint answers with status 503 and a web page."), required=False
    )
    retry_after = forms.IntegerField(
        label="Retry-After",
        help_text=_("Seconds to wait, sent during an outage. Empty: not sent."),
        required=False,
        min_value=0,
    )
    token_life = forms.IntegerField(
        label=_("Token lifetime"),
        help_text=_("Seconds. Empty: AIRisk names no expiry."),
        required=False,
        min_value=1,
        max_value=_TEN_YEARS,
    )
    expires_in_shape = forms.BooleanField(
        label="expires_in", help_text=_("Answers contain this instead of “expiration”."), required=False
    )
    login_page = forms.BooleanField(
        label=_("Login page"),
        help_text=_("A person has to click a button before the redirect."),
        required=False,
    )
    refuse = forms.BooleanField(
        label=_("Refuse"), help_text=_("Redirects with error=access_denied instead of a code."), required=False
    )
    malformed = forms.BooleanField(
        label=_("Malformed answer"), help_text=_("A web page instead of a token."), required=False
    )
    refusals = forms.ChoiceField(
        label=_("Refusals"),
        help_text=_("How the authorization endpoint refuses a request."),
        choices=[
            ("", _("Status and reason")),
            ("error", _("Redirect with error=…")),
            ("redirect", _("Redirect to JSON")),
            ("json", _("JSON with status 200")),
        ],
        required=False,
    )
    state_missing = forms.BooleanField(
        label=_("No state"), help_text=_("AIRisk does not return the state, like some old deployments."), required=False
    )
    codes_carry_user = forms.BooleanField(
        label=_("Codes carry their user"),
        help_text=_("The token is for the userid in the authorization URL, whatever the token request says."),
        required=False,
    )
    codes_reusable = forms.BooleanField(
        label=_("Reusable codes"), help_text=_("A code works more than once."), required=False
    )
    any_redirect_uri = forms.BooleanField(
        label=_("Any redirect URI"), help_text=_("The token endpoint does not check it."), required=False
    )
    no_offset = forms.BooleanField(
        label=_("Times without an offset"), help_text=_("UTC, but without the Z."), required=False
    )
    no_agents = forms.BooleanField(label=_("No agents"), help_text=_("No user has any agents."), required=False)
    old_stream = forms.BooleanField(
        label=_("Old stream"), help_text=_("Answers are streamed as server-sent events, as in 2025."), required=False
    )
    first_text_after = forms.FloatField(
        label=_("Slow answers"),
        help_text=_("Seconds before the first text of an answer. Empty: no delay."),
        required=False,
        min_value=0,
        max_value=120,
    )
    stream_breaks_off = forms.BooleanField(
        label=_("Broken answers"), help_text=_("Answers break off in the middle."), required=False
    )


@sandbox_view
@csrf_protect
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def control(request: HttpRequest) -> HttpResponseBase:
    """Show the switches and set them."""
    if request.method != "POST":
        return _page(request, SwitchesForm(initial=asdict(world.switches), label_suffix=""))
    action = request.POST.get("action", "")
    if action == "end_all_tokens":
        world.end_all_tokens()
    elif action == "reset":
        world.reset()
    else:
        form = SwitchesForm(request.POST, label_suffix="")
        if not form.is_valid():
            return _page(request, form, status=400)
        world.switches = Switches(**form.cleaned_data)
    return HttpResponse(status=303, headers={"Location": f"?done={action if action in _DONE else 'save'}"})


@sandbox_view
@never_cache
@require_safe
def journal(request: HttpRequest) -> HttpResponseBase:
    """Return the requests that AIRisk received, oldest first, for tests that run in another process."""
    return JsonResponse({"journal": [asdict(entry) for entry in world.journal]})


def _page(request: HttpRequest, form: SwitchesForm, status: int = 200) -> HttpResponse:
    context = {
        "form": form,
        "done": _DONE.get(request.GET.get("done", "")) if request.method != "POST" else None,
        # Made from the address that the browser uses, so that it is right under any prefix.
        "base_url": request.build_absolute_uri("..").removesuffix("/"),
        "clients": {client_id: redirect_uris(client) for client_id, client in clients().items()},
        "journal": world.journal[: -_LATEST - 1 : -1],
    }
    response = render(request, "airisk_sandbox/control.html", context, status=status)
    response["Content-Security-Policy"] = (
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'"
    )
    return response
