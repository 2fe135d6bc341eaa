"""Who is who on AIRisk, edited by staff."""

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.http import HttpRequest

from .. import conf
from ..models import AIRiskIdentity
from .filters import DeploymentFilter, SearchableByUser

if TYPE_CHECKING:
    _IdentityAdmin = admin.ModelAdmin[AIRiskIdentity]
else:
    _IdentityAdmin = admin.ModelAdmin


@admin.register(AIRiskIdentity)
class AIRiskIdentityAdmin(SearchableByUser, _IdentityAdmin):
    list_display = ("user", "deployment", "userid")
    list_display_links = ("user", "userid")
    list_filter = (DeploymentFilter,)
    list_select_related = ("user",)
    raw_id_fields = ("user",)

    def get_autocomplete_fields(self, request: HttpRequest) -> list[str]:
        users = self.admin_site._registry.get(get_user_model())
        return ["user"] if users is not None and users.get_search_fields(request) else []

    def get_form(self, request: Any, obj: AIRiskIdentity | None = None, change: bool = False, **kwargs: Any) -> Any:
        # A deployment that was removed from the settings stays a choice for its identities: saving must not move them.
        aliases = dict.fromkeys([*conf.aliases(), *([obj.deployment] if obj else [])])
        kwargs["widgets"] = {"deployment": forms.Select(choices=[(alias, alias) for alias in aliases])}
        return super().get_form(request, obj, change, **kwargs)
