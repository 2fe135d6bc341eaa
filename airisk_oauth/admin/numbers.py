"""The numbers of the admin's list of tokens: counted for every page, or once a minute where there are very many."""

import hashlib
from collections import Counter
from contextlib import suppress
from functools import cached_property
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
FILTERS: Final = (DeploymentFilter.parameter_name, StatusFilter.parameter_name)
#: Parameters of a list that shows all rows: page, order, notice of an error.
UNFILTERED: Final = frozenset({"p", "o", "e", "all"})
#: Parameters of a list whose numbers follow from those of the whole table.
KNOWN: Final = UNFILTERED | {*FILTERS, "_facets"}
#: Sent by the script that fetches the numbers of a page without them.
HEADER: Final = "X-AIRisk-Numbers"


class Numbers:
    """How many tokens a list shows without any filter, counted when asked for.

    :param site: the name of the admin site.
    """

    def __init__(self, tokens: "QuerySet[Any]", request: HttpRequest, site: str) -> None:
        self._tokens, self._request = tokens, request
        self._key = _key(tokens, request, site)
        kept = _kept(self._key)
        self._counts: Counts | None = kept if isinstance(kept, Counter) else None

    @cached_property
    def total(self) -> int:
        # Unlike their statuses, this can be counted without reading the rows.
        return self._tokens.order_by().count() if self._counts is None else self._counts.total()

    @property
    def are_many(self) -> bool:
        return self.total > searching.LARGE

    @property
    def counts(self) -> "Counts":
        """How many tokens each deployment has in each status."""
        from ..tokens.status import count_by_deployment

        if self._counts is None:
            self._counts = count_by_deployment(self._tokens)
            if self.are_many:
                _keep(self._key, self._counts)
        return self._counts

    @cached_property
    def come_later(self) -> bool:
        """Whether to show the page before its tokens are counted; its script then fetches the numbers.

        Only one page a minute is shown without them: the browser may run no scripts, and the cache may keep nothing.
        """
        if self._counts is not None or not self.are_many or not self._request.GET.keys() <= UNFILTERED:
            return False
        key = f"{self._key}.later"
        if HEADER in self._request.headers or _kept(key):
            return False
        _keep(key, "shown")
        return bool(_kept(key) == "shown")

    def of_list(self) -> int:
        """Return how many tokens the list shows, if it is not searched."""
        chosen = {name: value for name in FILTERS if (value := self._request.GET.get(name))}
        return only(self.counts, **chosen).total() if chosen else self.total

    def without(self, parameter: str, changelist: Any) -> "Counts":
        """Return the numbers of what the list would show without one of its filters."""
        from ..tokens.status import count_by_deployment

        if self._request.GET.keys() <= KNOWN:
            return only(self.counts, **{name: self._request.GET.get(name) for name in FILTERS if name != parameter})
        return count_by_deployment(changelist.get_queryset(self._request, exclude_parameters=[parameter]))

    def few_with(self, status: str) -> list[Any] | None:
        """Return the keys of the tokens with this status if they are few in a long list; otherwise ``None``.

        They are kept as well: to find them again, all other tokens would be read.
        """
        from ..tokens.status import FEW, implied_by

        number = only(self.counts, status=status).total()
        if not self.are_many or number > FEW:
            return None
        key = f"{self._key}.{status}"
        keys = _kept(key) if number else []
        if not isinstance(keys, list):
            found = self._tokens.filter(implied_by(status), status=status).order_by().values_list("pk", flat=True)
            keys = list(found[: FEW * 2])
            _keep(key, keys)
        return keys


def only(counts: "Counts", deployment: str | None = None, status: str | None = None) -> "Counts":
    """Return the numbers of one deployment, of one status, or of both, as the parameters of the list name them."""
    aliases = other_deployments(counts) if deployment == NOT_CONFIGURED else {deployment}
    return Counter(
        {
            (its_alias, its_status): number
            for (its_alias, its_status), number in counts.items()
            if (not deployment or its_alias in aliases) and (not status or its_status.value == status)
        }
    )


def other_deployments(counts: "Counts") -> set[str]:
    """Return the aliases that are not in the settings."""
    return {alias for alias, _status in counts} - set(conf.known_aliases())


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
