"""Which tokens a sweep takes, in which order, and why it leaves one as it is."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, cast

from django.contrib.auth import get_user_model
from django.db import Error as DatabaseError
from django.db.models import Exists, Max, OuterRef, Q
from django.utils import timezone
from django.utils.module_loading import import_string

from ..database.expiry import SKEW
from ..database.failures import MAX_PAUSE, MAX_PAUSE_FOR_PERSON
from ..events import log
from ..models import AIRiskToken, AIRiskTokenQuerySet
from ..oauth.deployment import Deployment
from ..sealing import Unreadable
from ..userids import userid_of
from .report import DEACTIVATED, IDENTITY_CHANGED, OTHER_ADDRESS, UNREADABLE, UNRESOLVED

logger = logging.getLogger("airisk_oauth.sweep")

#: What a sweep writes to the row of a token that it cannot even try to renew; see :func:`is_known`.
NOTED: Final = ("failing_since", "failure_count", "failure_kind")
_KNOWN: Final = Q(failure_kind__in=AIRiskToken.NEEDS_PERSON) | Q(failing_since__isnull=False, failure_count=0)


def is_known(token: AIRiskToken) -> bool:
    """Tell whether an earlier attempt has found that this token needs a person."""
    return token.needs_person or (token.failing_since is not None and token.failure_count == 0)


def note(token: AIRiskToken, now: datetime) -> None:
    """Set :data:`NOTED` (without saving): failing since now, though no renewal has failed.

    Nothing that keeps another process from renewing it: that one may have the right key.
    """
    token.failing_since, token.failure_count, token.failure_kind = now, 0, ""


@dataclass
class Selection:
    """The tokens of one deployment that are to be renewed.

    :ivar within: what ends within this time; ``None``: all, whatever their end, idleness or cool-down.
    :ivar user_id: only this user's token.
    :ivar pks: only these rows.
    :ivar limit: so many tokens and no more.
    """

    deployment: Deployment
    within: timedelta | None = timedelta(minutes=10)
    user_id: Any = None
    pks: list[Any] | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        self.started = timezone.now()

    def candidates(self) -> AIRiskTokenQuerySet:
        """Return the tokens that are to be renewed; none twice, however short a life AIRisk gives them."""
        return self._due(self._chosen().exclude(_of_deactivated()))

    def total(self) -> int:
        number = self.candidates().count()
        return number if self.limit is None else min(number, self.limit)

    def deactivated(self) -> int:
        """Return how many tokens are left out though they, or their user, were named: the user is deactivated."""
        if self.user_id is None and self.pks is None:
            return 0
        return self._due(self._chosen().filter(_of_deactivated())).count()

    def lines(self) -> "list[Line]":
        """Return the tokens as lines, of which the second waits for the first: those that need a person come last."""
        orders = ("expires_at", "pk") if self.within is not None else ("pk",)
        return [
            Line(lambda: self.candidates().exclude(_KNOWN), orders),
            Line(lambda: self.candidates().filter(_KNOWN).exclude(self._found_meanwhile()), orders),
        ]

    def _found_meanwhile(self) -> Q:
        """Return whether a token has become a known one since the sweep began, most likely by the sweep itself."""
        latest = timezone.now() + SKEW
        return Q(failing_since__gt=self.started, failing_since__lte=latest) | Q(
            failed_at__gt=self.started, failed_at__lte=latest
        )

    def is_client_doubtful(self) -> bool:
        """Tell whether AIRisk has answered 401 for some token, and has renewed no other one of the deployment since.

        Then it may be the site itself that AIRisk refuses.
        """
        if not self.deployment.silent_renewal:
            return False
        latest = timezone.now() + SKEW
        tokens = AIRiskToken.objects.primary().filter(deployment=self.deployment.alias)
        refused = tokens.filter(failure_kind=AIRiskToken.Failure.REFUSED, failure_status=401, failing_since__lte=latest)
        since = refused.aggregate(since=Max("failing_since"))["since"]
        return since is not None and not tokens.filter(renewed_at__gt=since, renewed_at__lte=latest).exists()

    def _chosen(self) -> AIRiskTokenQuerySet:
        tokens: AIRiskTokenQuerySet = AIRiskToken.objects.primary().filter(deployment=self.deployment.alias)
        if not self.deployment.silent_renewal:
            return tokens.none()
        if self.user_id is not None:
            tokens = tokens.filter(user=self.user_id)
        if self.pks is not None:
            tokens = tokens.filter(pk__in=self.pks)
        return tokens.exclude(sealed="")

    def _due(self, tokens: AIRiskTokenQuerySet) -> AIRiskTokenQuerySet:
        now = timezone.now()
        # A time that is ahead of now is that of a clock that was wrong: nobody waits until it comes.
        tokens = tokens.filter(Q(renewed_at__lte=self.started) | Q(renewed_at__gt=now + SKEW))
        if self.within is None:
            return tokens
        return tokens.filter(
            _may_be_tried(self.started, now),
            expires_at__lte=self.started + self.within,
            last_used_at__gte=self.started - timedelta(days=self.deployment.renew_unused_for),
        )


def _may_be_tried(started: datetime, now: datetime) -> Q:
    """Return whether a token does not cool down, or does so for longer than it ever should."""
    too_long = Q(retry_at__gt=now + MAX_PAUSE) & ~Q(failure_kind__in=AIRiskToken.NEEDS_PERSON)
    far_too_long = Q(retry_at__gt=now + MAX_PAUSE_FOR_PERSON)
    return Q(retry_at=None) | Q(retry_at__lte=started) | Q(failed_at__gt=now + SKEW) | too_long | far_too_long


def _of_deactivated() -> Q:
    """Return whether a token's user is deactivated, where the site's users have such a column."""
    users = get_user_model()
    if not _has_column(users):
        return Q(pk__in=[])
    # Not a join: PostgreSQL locks no row of an outer one.
    return Q(Exists(users._base_manager.filter(pk=OuterRef("user"), is_active=False)))


def _has_column(users: Any) -> bool:
    return any(field.name == "is_active" for field in users._meta.concrete_fields)


class Line:
    """Tokens in the order in which they are taken, and how far that has come from either end."""

    def __init__(self, rows: Callable[[], AIRiskTokenQuerySet], orders: tuple[str, ...]) -> None:
        self._rows, self._orders = rows, orders
        self._passed = {False: Q(), True: Q()}

    def take(
        self, claim: Callable[[AIRiskTokenQuerySet], list[AIRiskToken]], *, from_far_end: bool = False
    ) -> list[AIRiskToken]:
        """Claim the next page from this end, in keyset order: a page costs the same wherever it is."""
        sign, beyond = ("-", "lt") if from_far_end else ("", "gt")
        rows = self._rows().filter(*self._passed.values())
        page = claim(rows.order_by(*(f"{sign}{name}" for name in self._orders)))
        if page:
            end, pk = page[-1].expires_at, page[-1].pk
            further = Q(**{f"pk__{beyond}": pk})
            if len(self._orders) > 1:
                further = Q(**{f"expires_at__{beyond}": end}) | Q(expires_at=end) & further
            self._passed[from_far_end] = further
        return page


class Judge:
    """Says why tokens must not be renewed, whatever AIRisk would answer."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self._unresolved: set[Any] = set()

    def reasons_against(self, page: list[AIRiskToken]) -> dict[Any, str | None]:
        """Return the reason, or ``None``, for each of these tokens by primary key."""
        user_ids = [token.user_id for token in page if token.user_id is not None]
        userids = self._userids(user_ids)
        deactivated = _deactivated_by_property(user_ids)
        return {token.pk: self._reason(token, userids, deactivated) for token in page}

    def _reason(self, token: AIRiskToken, userids: dict[Any, str | None], deactivated: set[Any]) -> str | None:
        if token.user_id in deactivated:
            return DEACTIVATED
        if token.user_id in self._unresolved:
            return UNRESOLVED
        if token.user_id is not None and userids.get(token.user_id) != token.userid:
            return IDENTITY_CHANGED
        if token.user_id is not None and not token.is_from(self.deployment):
            return OTHER_ADDRESS
        try:
            # A host with a wrong key must not replace what the others can still open.
            token.access_token  # noqa: B018
        except Unreadable:
            return UNREADABLE
        return None

    def _userids(self, user_ids: list[Any]) -> dict[Any, str | None]:
        resolver = import_string(self.deployment.userid)
        if hasattr(resolver, "many"):
            return cast("dict[Any, str | None]", resolver.many(user_ids, self.deployment.alias))
        users = get_user_model()._default_manager.in_bulk(user_ids)
        return {pk: self._userid_of(user) for pk, user in users.items()}

    def _userid_of(self, user: Any) -> str | None:
        try:
            return userid_of(self.deployment, user)
        except DatabaseError:
            raise
        except Exception as error:  # noqa: BLE001 - the site's own code, asked about one user
            # One user of whom it says nothing must not keep the tokens of all others from being renewed.
            fields = {"resolver": self.deployment.userid, "user_id": user.pk, "deployment": self.deployment.alias}
            message = "%(resolver)s failed for user %(user_id)s: %(error)s"
            log(logger, logging.WARNING, "sweep.userid_failed", message, error=type(error).__name__, **fields)
            self._unresolved.add(user.pk)
            return None


def _deactivated_by_property(user_ids: list[Any]) -> set[Any]:
    """Return who of these users is deactivated by the word of a property; a column has been asked in the query."""
    users = get_user_model()
    if _has_column(users) or isinstance(getattr(users, "is_active", True), bool):
        return set()
    return {pk for pk, user in users._base_manager.in_bulk(user_ids).items() if not user.is_active}
