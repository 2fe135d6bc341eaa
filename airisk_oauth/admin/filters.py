"""How the lists of the admin are filtered."""

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Final

from django.contrib import admin
from django.db.models import Count, Q
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from .. import conf

if TYPE_CHECKING:
    from django.db.models import QuerySet


#: No alias, because aliases are slugs.
NOT_CONFIGURED: Final = "!"


class Filter(admin.SimpleListFilter):
    """A filter whose choices are conditions on rows."""

    @abstractmethod
    def condition(self, value: str) -> Any:
        """Return what is true of the rows of a choice."""

    def queryset(self, request: HttpRequest, queryset: "QuerySet[Any]") -> "QuerySet[Any]":
        value = self.value()
        return queryset.filter(self.condition(value)) if value else queryset

    def get_facet_counts(self, pk_attname: str, filtered_qs: "QuerySet[Any]") -> dict[str, Any]:
        """Count by the conditions: Django looks each row up among all rows of a choice, which can take hours."""
        choices = enumerate(value for value, _label in self.lookup_choices)
        return {f"{index}__c": Count(pk_attname, filter=Q(self.condition(value))) for index, value in choices}


class _NumbersFilter(Filter):
    """A filter that uses the numbers of the list, if its admin has them."""

    def __init__(self, request: HttpRequest, params: Any, model: Any, model_admin: Any) -> None:
        self.numbers: Any = getattr(model_admin, "numbers", None)
        super().__init__(request, params, model, model_admin)

    def get_facet_queryset(self, changelist: Any) -> dict[str, int]:
        if self.numbers is None:
            return super().get_facet_queryset(changelist)
        from .numbers import only

        name = str(self.parameter_name)
        counts = self.numbers(self.request).without(name, changelist)
        choices = enumerate(value for value, _label in self.lookup_choices)
        return {f"{index}__c": only(counts, **{name: value}).total() for index, value in choices}


class DeploymentFilter(_NumbersFilter):
    title = _("deployment")
    parameter_name = "deployment"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [*((alias, alias) for alias in conf.known_aliases()), (NOT_CONFIGURED, str(_("not in the settings")))]

    def condition(self, value: str) -> Q:
        from .numbers import other_deployments

        if value != NOT_CONFIGURED:
            return Q(deployment=value)
        if self.numbers is None:
            return ~Q(deployment__in=conf.known_aliases())
        return Q(deployment__in=other_deployments(self.numbers(self.request).counts))


class StatusFilter(_NumbersFilter):
    title = _("status")
    parameter_name = "status"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        from ..tokens.status import Status

        return list(Status.choices)

    def condition(self, value: str) -> Q:
        from ..tokens.status import implied_by

        few = self.numbers(self.request).few_with(value)
        return Q(implied_by(value) if few is None else Q(pk__in=few), status=value)
