"""Search by userid, and by what the site's user model has as a name and an e-mail address."""

from typing import TYPE_CHECKING, Any, ClassVar, Final

from django.contrib.auth import get_user_model
from django.db import connections
from django.db.models import Q
from django.http import HttpRequest
from django.utils.translation import gettext

if TYPE_CHECKING:
    from collections.abc import Iterable

    from django.contrib import admin
    from django.db.models import QuerySet

    _ModelAdmin = admin.ModelAdmin[Any]
else:
    _ModelAdmin = object

#: With more rows than this, a search uses the indexes, and numbers are kept for some seconds.
LARGE: Final = 50_000
#: How many rows a search in such a list finds.
FOUND: Final = 1_000


class SearchableByUser(_ModelAdmin):
    """An admin of rows that belong to users.

    A long list is searched by what begins with the text, because no index of all databases finds what contains it.
    """

    searched: ClassVar[tuple[str, ...]] = ("userid",)

    def get_search_fields(self, request: HttpRequest) -> list[str]:
        user = get_user_model()
        fields = {field.name for field in user._meta.get_fields()}
        email = getattr(user, "get_email_field_name", lambda: "email")()
        names = {user.USERNAME_FIELD, email} & fields
        return [*self.searched, *(f"user__{name}" for name in sorted(names))]

    def is_large(self, request: HttpRequest) -> bool:
        return bool(self.model._base_manager.order_by("pk")[LARGE : LARGE + 1].exists())

    def get_search_results(self, request: HttpRequest, queryset: "QuerySet[Any]", search_term: str) -> Any:
        if not search_term.strip() or not self.is_large(request):
            return super().get_search_results(request, queryset, search_term)
        known: dict[Any, list[Any]] = request.__dict__.setdefault("_airisk_found", {})
        key = self.opts.label, search_term
        if key not in known:
            known[key] = rows_beginning_with(
                search_term.strip(), self.get_search_fields(request), self.get_queryset(request)
            )
        return queryset.filter(pk__in=known[key]), False

    def notes(self, request: HttpRequest) -> list[str]:
        """Return what staff have to know about a list that is long."""
        if not self.is_large(request):
            return []
        return [gettext("In a list this long, a search finds what begins with the text: at most %d entries.") % FOUND]


def rows_beginning_with(text: str, fields: "Iterable[str]", rows: "QuerySet[Any]") -> list[Any]:
    """Return the keys of the first rows that have this text at the beginning of a field, as typed or in lower case.

    :param rows: those that this member of staff may see, without filters.
    """
    found: set[Any] = set()
    users: Any = get_user_model()
    for field in fields:
        _, of_user, name = field.rpartition("user__")
        if not of_user:
            found.update(_first(rows, name, text))
        elif "@" in text or _has_index(users, name):
            owners = list(_first(users._base_manager.using(rows.db), name, text))
            found.update(rows.filter(user__in=owners).order_by().values_list("pk", flat=True)[:FOUND])
    return sorted(found)[:FOUND]


def _first(rows: Any, name: str, text: str) -> Any:
    """Return the keys of the first rows in which this column begins with the text, in the order of an index."""
    vendor = connections[rows.db].vendor
    begins = Q()
    for each in {text, text.lower()}:
        # Django asks MySQL for an exact comparison in a way that uses no index.
        condition = Q(**{f"{name}__{'istartswith' if vendor == 'mysql' else 'startswith'}": each})
        if vendor == "sqlite":
            # SQLite uses no index for LIKE, and compares letter by letter.
            condition &= Q(**{f"{name}__gte": each, f"{name}__lt": f"{each}\U0010ffff"})
        begins |= condition
    order = "pk" if vendor == "postgresql" else name
    return rows.filter(begins).order_by(order).values_list("pk", flat=True)[:FOUND]


def _has_index(model: Any, name: str) -> bool:
    field = model._meta.get_field(name)
    return bool(field.unique or field.db_index)
