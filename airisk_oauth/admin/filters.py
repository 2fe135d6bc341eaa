"""How the lists of the admin are filtered."""

from typing import TYPE_CHECKING, Any, Final

from django.contrib import admin
from django.db.models import Q
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from .. import conf

if TYPE_CHECKING:
    from django.db.models import QuerySet


#: No alias, because aliases are slugs.
NOT_CONFIGURED: Final = "!"


class _Filter(admin.SimpleListFilter):
    """A filter that knows the admin whose list it is for."""

    def __init__(self, request: HttpRequest, params: Any, model: Any, model_admin: Any) -> None:
        self._model_admin = model_admin
        super().__init__(request, params, model, model_admin)


class DeploymentFilter(_Filter):
    title = _("deployment")
    parameter_name = "deployment"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [*((alias, alias) for alias in conf.known_aliases()), (NOT_CONFIGURED, str(_("not in the settings")))]

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Any]") -> "QuerySet[Any]":
        numbers = getattr(self._model_admin, "numbers", None)
        if self.value() == NOT_CONFIGURED and numbers:
            return queryset.filter(deployment__in=numbers(request).other_deployments())
        if self.value() == NOT_CONFIGURED:
            return queryset.exclude(deployment__in=conf.known_aliases())
        return queryset.filter(deployment=self.value()) if self.value() else queryset


class StatusFilter(_Filter):
    title = _("status")
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        from ..tokens.status import Status

        return list(Status.choices)

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Any]") -> "QuerySet[Any]":
        from ..tokens.status import implied_by

        status = self.value()
        if not status:
            return queryset
        admin = self._model_admin
        few = admin.numbers(request).few_with(status, admin.get_queryset(request))
        return queryset.filter(implied_by(status) if few is None else Q(pk__in=few), status=status)
