"""How the lists of the admin are filtered and searched."""

from typing import TYPE_CHECKING, Any, ClassVar, Final

from django.contrib import admin
from django.contrib.auth import get_user_model
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from .. import conf

if TYPE_CHECKING:
    from django.db.models import QuerySet


#: No alias, because aliases are slugs.
NOT_CONFIGURED: Final = "!"


class DeploymentFilter(admin.SimpleListFilter):
    title = _("deployment")
    parameter_name = "deployment"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [*((alias, alias) for alias in conf.known_aliases()), (NOT_CONFIGURED, str(_("not in the settings")))]

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Any]") -> "QuerySet[Any]":
        if self.value() == NOT_CONFIGURED:
            return queryset.exclude(deployment__in=conf.known_aliases())
        return queryset.filter(deployment=self.value()) if self.value() else queryset


class StatusFilter(admin.SimpleListFilter):
    title = _("status")
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        from ..tokens.status import Status

        return list(Status.choices)

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Any]") -> "QuerySet[Any]":
        return queryset.filter(status=self.value()) if self.value() else queryset


class SearchableByUser:
    """Search by userid, and by what the site's user model has as a name and an e-mail address."""

    searched: ClassVar[tuple[str, ...]] = ("userid",)

    def get_search_fields(self, request: HttpRequest) -> list[str]:
        user = get_user_model()
        fields = {field.name for field in user._meta.get_fields()}
        email = getattr(user, "get_email_field_name", lambda: "email")()
        names = {user.USERNAME_FIELD, email} & fields
        return [*self.searched, *(f"user__{name}" for name in sorted(names))]
