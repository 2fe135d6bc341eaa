"""The page of one token, with its buttons: renew, and disconnect."""

from typing import Any

from django.contrib import messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.translation import gettext

from ..models import AIRiskToken
from . import questions
from .columns import TokenColumns


class TokenPage(TokenColumns):
    delete_confirmation_template = questions.TEMPLATE

    def render_change_form(self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        token = kwargs["obj"]
        tools = []
        if self.has_renew_permission(request):
            tools.append((self._url("renew", token), gettext("Renew now")))
        if self.has_delete_permission(request, token):
            tools.append((self._url("delete", token), gettext("Disconnect")))
        # Links, because themes put them into the page's form, which can have no other form inside.
        context |= {"airisk_tools": tools, "show_delete": False}
        return super().render_change_form(request, context, *args, **kwargs)

    def has_renew_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("airisk_oauth.change_airisktoken")

    def renew(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask whether to renew a token; the form sends what the action of the list sends."""
        token = self.get_object(request, unquote(object_id))
        if not (self.has_renew_permission(request) and self.has_view_permission(request, token)):
            raise PermissionDenied
        if token is None:
            raise Http404
        sent = {
            "hidden": [(ACTION_CHECKBOX_NAME, token.pk), ("action", "renew_now")],
            "form_url": self._url("changelist"),
            "back": self._url("change", token),
        }
        return questions.ask(self, request, {**questions.to_renew(1), **sent})

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None) -> Any:
        question = {**questions.to_disconnect(1), "back": self._url("change", object_id)}
        return super().delete_view(request, object_id, {**(extra_context or {}), **question})

    def delete_model(self, request: HttpRequest, obj: AIRiskToken) -> None:
        from ..connecting import flow

        flow.disconnect(obj)

    def response_delete(self, request: HttpRequest, obj_display: str, obj_id: int) -> HttpResponse:
        self.message_user(request, questions.disconnected(1), messages.SUCCESS)
        return redirect(self._url("changelist"))

    def _url(self, page: str, token: AIRiskToken | str | None = None) -> str:
        """Return the address of a page of the admin.

        :param token: the token that the page is about, or its key as it is in an address already.
        """
        key = quote(token.pk) if isinstance(token, AIRiskToken) else token
        args = [] if key is None else [key]
        return reverse(f"admin:airisk_oauth_airisktoken_{page}", args=args, current_app=self.admin_site.name)
