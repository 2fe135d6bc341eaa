"""What staff are asked before a token is renewed or disconnected, and what they are told afterwards."""

from typing import TYPE_CHECKING, Any, Final

from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin

TEMPLATE = "admin/airisk_oauth/airisktoken/confirm.html"
#: For tokens that something else has renewed or disconnected since they were chosen.
NONE_LEFT: Final = _("None of the chosen tokens is in this list any more.")


def ask(model_admin: "ModelAdmin[Any]", request: HttpRequest, question: dict[str, Any]) -> TemplateResponse:
    """Show a page that asks for confirmation.

    :param question: its ``title`` and ``explanation``; ``hidden``, the names and values that its form sends; ``back``,
        the address for those who do not confirm; and ``form_url``, if the form is for another address than this one.
    """
    context = {**model_admin.admin_site.each_context(request), "opts": model_admin.opts, **question}
    return TemplateResponse(request, TEMPLATE, context)


def to_renew(number: int) -> dict[str, Any]:
    return {
        "title": ngettext("Renew %d token now?", "Renew %d tokens now?", number) % number,
        "explanation": gettext("AIRisk is asked for a new token for each of them. Their users will not notice."),
    }


def to_disconnect(number: int) -> dict[str, Any]:
    explanation = gettext(
        "Their users will have to connect again. AIRisk cannot revoke tokens: there they stay valid until they expire."
    )
    title = ngettext("Disconnect %d token?", "Disconnect %d tokens?", number) % number
    return {"title": title, "explanation": explanation}


def disconnected(number: int) -> str:
    return ngettext("%d token was disconnected.", "%d tokens were disconnected.", number) % number


def same_request(request: HttpRequest) -> dict[str, Any]:
    """Have the form send the action of a list once more, for the same rows."""
    chosen = ((ACTION_CHECKBOX_NAME, pk) for pk in request.POST.getlist(ACTION_CHECKBOX_NAME))
    across = ("select_across", request.POST.get("select_across", "0"))
    return {"hidden": [*chosen, ("action", request.POST["action"]), across], "back": request.get_full_path()}
