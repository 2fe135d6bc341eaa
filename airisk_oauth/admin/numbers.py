"""The numbers of the admin's list of tokens: counted for every page, or once a minute where there are very many."""

import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from django.core.cache import cache
from django.core.exceptions import EmptyResultSet
from django.db import connections
from django.http import HttpRequest

from .. import conf
from ..database.transactions import search_path
from . import searching
from .filters import NOT_CONFIGURED, DeploymentFilter, StatusFilter

if TYPE_CHECKING:
    from django.db.models import QuerySet

    from ..tokens.status import Counts

#: For how many seconds the numbers of a long list are kept.
KEPT_FOR: Final = 60
#: Parameters of a list whose numbers follow from those of the whole table: filters, page, order, notice of an error.
KNOWN: Final = frozenset({StatusFilter.parameter_name, DeploymentFilter.parameter_name, "p", "o", "e", "all"})


class Numbers:
    """How many tokens each deployment has in each status.

    :param key: under which they are kept in the cache.
    """

    def __init__(self, counts: "Counts", key: str) -> None:
        self.counts, self.key = counts, key

    @property
    def are_kept(self) -> bool:
        return self.counts.total() > searching.LARGE

    def other_deployments(self) -> set[str]:
        """Return the aliases of tokens that are not in the settings."""
        return {alias for alias, _status in self.counts} - set(conf.known_aliases())

    def chosen(self, alias: str | None, status: str | None = None) -> "Counts":
        """Return those of one deployment, and of one status, as the parameters of the list name them."""
        aliases = self.other_deployments() if alias == NOT_CONFIGURED else {alias}
        return type(self.counts)(
            {
                (its_alias, its_status): number
                for (its_alias, its_status), number in self.counts.items()
                if (not alias or its_alias in aliases) and (not status or its_status.value == status)
            }
        )

    def few_with(self, status: str, tokens: "QuerySet[Any]") -> list[Any] | None:
        """Return the keys of the tokens with this status if they are few in a long list; otherwise ``None``.

        They are kept as well: to find them again, all other tokens would be read.

        :param tokens: those of the list without any filter.
        """
        from ..tokens.status import FEW, implied_by

        total = self.chosen(None, status).total()
        if not self.are_kept or total > FEW:
            return None
        key = f"{self.key}.{status}"
        keys = _kept(key) if total else []
        if not isinstance(keys, list):
            found = tokens.filter(implied_by(status), status=status).order_by().values_list("pk", flat=True)
            keys = list(found[: FEW * 2])
            _keep(key, keys)
        return keys


def numbers_of(tokens: "QuerySet[Any]", request: HttpRequest, site: str) -> Numbers:
    """Return the numbers of the tokens that a list shows without any filter.

    :param site: the name of the admin site.
    """
    from ..tokens.status import count_by_deployment

    key = _key(tokens, request, site)
    numbers = _kept(key)
    if not isinstance(numbers, Numbers):
        numbers = Numbers(count_by_deployment(tokens), key)
        if numbers.are_kept:
            _keep(key, numbers)
    return numbers


def _kept(key: str) -> Any:
    # A cache that is not available raises errors of its own: then the tokens are counted.
    with suppress(Exception):
        return cache.get(key)
    return None


def _keep(key: str, value: Any) -> None:
    with suppress(Exception):
        cache.set(key, value, KEPT_FOR)


def _key(tokens: "QuerySet[Any]", request: HttpRequest, site: str) -> str:
    """Return a key that differs wherever the numbers can: by database, schema, site, member of staff, and rows."""
    try:
        rows = tokens.order_by().values("pk").query.sql_with_params()
    except EmptyResultSet:
        rows = None
    database = connections[tokens.db].settings_dict
    where = (tokens.db, database["NAME"], database["HOST"], search_path(tokens.db))
    parts = (where, site, getattr(request.user, "pk", None), rows)
    return f"airisk_oauth.numbers.{hashlib.sha256(repr(parts).encode()).hexdigest()}"


def page_by_keys(paginator: Any, number: Any) -> Any:
    """Return a page of a long list: first only the keys of its rows are looked up, and then these rows.

    Otherwise a database may work out the status of every row that comes before the page.
    """
    page = type(paginator).page(paginator, number)
    page.object_list = paginator.object_list.filter(pk__in=list(page.object_list.values_list("pk", flat=True)))
    return page
