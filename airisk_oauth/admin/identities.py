"""Who is who on AIRisk, edited by staff."""

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.http import HttpRequest
from django.urls import reverse
from django.utils.translation import gettext

from ..models import AIRiskIdentity
from .filters import DeploymentFilter
from .import_page import ImportPage
from .searching import SearchableByUser
from .users import AIRiskIdentityFilter, deployment_choices, find_aliases

if TYPE_CHECKING:
    from collections.abc import Iterator


@admin.register(AIRiskIdentity)
class AIRiskIdentityAdmin(SearchableByUser, ImportPage):
    list_display = ("user", "deployment", "userid", "label")
    list_display_links = ("user", "userid")
    list_filter = (DeploymentFilter,)
    searched = ("userid", "label")
    list_select_related = ("user",)
    show_full_result_count = False
    raw_id_fields = ("user",)

    def get_autocomplete_fields(self, request: HttpRequest) -> list[str]:
        users = self.admin_site._registry.get(get_user_model())
        return ["user"] if users is not None and users.get_search_fields(request) else []

    def get_form(self, request: Any, obj: AIRiskIdentity | None = None, change: bool = False, **kwargs: Any) -> Any:
        # A deployment that was removed from the settings stays a choice for its identities: saving must not move them.
        kwargs["widgets"] = {"deployment": deployment_choices(*([obj.deployment] if obj else []))}
        return super().get_form(request, obj, change, **kwargs)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        ours = {"airisk_tools": [*self._tools(request)], "airisk_notes": self.notes(request)}
        return super().changelist_view(request, {**(extra_context or {}), **ours})

    def _tools(self, request: HttpRequest) -> "Iterator[tuple[str, str]]":
        """Yield the addresses and labels of the buttons above the list."""
        name, users = self.admin_site.name, get_user_model()
        if self.has_import_permission(request):
            yield reverse("admin:airisk_oauth_airiskidentity_import", current_app=name), gettext("Import from CSV")
        user_admin = self.admin_site._registry.get(users)
        if user_admin is None or not user_admin.has_view_permission(request):
            return
        aliases = find_aliases()
        if aliases and AIRiskIdentityFilter in user_admin.get_list_filter(request):
            page = f"{name}:{users._meta.app_label}_{users._meta.model_name}_changelist"
            query = f"?{AIRiskIdentityFilter.parameter_name}={aliases[0]}"
            yield reverse(page) + query, gettext("Users without an identity")
