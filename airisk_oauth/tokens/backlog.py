"""The order in which a sweep claims its tokens, a page at a time."""

from collections.abc import Callable

from django.db.models import Q

from ..models import AIRiskToken, AIRiskTokenQuerySet
from .selection import Selection

#: Leases the first of these rows, so many at most, and returns them.
Claim = Callable[[AIRiskTokenQuerySet, int], list[AIRiskToken]]


class Backlog:
    """The tokens that a sweep has yet to claim: first the others, then those that are known to need a person.

    :ivar size: how many tokens are left to claim, as counted when the sweep began.
    :ivar leaves_known: whether tokens that are known to need a person were left to a later sweep.
    """

    def __init__(self, selection: Selection) -> None:
        self._selection = selection
        self._order = ("expires_at", "pk") if selection.within is not None else ("pk",)
        self._known = _Queue(selection.known, self._order)
        self._queues = [_Queue(selection.fresh, self._order), self._known]
        self.size = selection.total()
        self._is_exhausted = self.leaves_known = False

    def claim_page(self, claim: Claim, limit: int, *, from_far_end: bool, tries_known: bool) -> list[AIRiskToken]:
        """Claim the next tokens, ``limit`` at most, and return them; an empty list if none is left.

        :param from_far_end: whether to begin with those that would be claimed last.
        :param tries_known: whether to claim tokens that are known to need a person.
        """
        while self.size > 0 and not self._is_exhausted:
            queue = self._queues[0]
            is_last = queue is self._known
            if is_last and not tries_known:
                self._is_exhausted = self.leaves_known = True
                break
            page = queue.claim_page(claim, min(limit, self.size), from_far_end=from_far_end)
            self.size -= len(page)
            if page:
                return page
            if is_last:
                self._is_exhausted = True
            else:
                del self._queues[0]
        return []

    def put_back(self, tokens: list[AIRiskToken]) -> None:
        """Have these tokens, which were claimed and released, claimed once more after the others."""
        pks = [token.pk for token in tokens]
        self._queues.insert(-1, _Queue(lambda: self._selection.candidates().filter(pk__in=pks), ("pk",)))
        self.size += len(pks)
        self._is_exhausted = False


class _Queue:
    """Tokens in the order of these columns, to be claimed from either end; the last column is ``pk``."""

    def __init__(self, rows: Callable[[], AIRiskTokenQuerySet], order: tuple[str, ...]) -> None:
        self._rows, self._order = rows, order
        self._remaining = {False: Q(), True: Q()}

    def claim_page(self, claim: Claim, limit: int, *, from_far_end: bool) -> list[AIRiskToken]:
        """Claim the next tokens from this end. The query begins where the page before it ended."""
        sign, beyond = ("-", "lt") if from_far_end else ("", "gt")
        rows = self._rows().filter(*self._remaining.values())
        page = claim(rows.order_by(*(f"{sign}{name}" for name in self._order)), limit)
        if page:
            expires_at, pk = page[-1].expires_at, page[-1].pk
            remaining = Q(**{f"pk__{beyond}": pk})
            if len(self._order) > 1:
                remaining = Q(**{f"expires_at__{beyond}": expires_at}) | Q(expires_at=expires_at) & remaining
            self._remaining[from_far_end] = remaining
        return page
