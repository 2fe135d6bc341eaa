"""Which tokens a sweep renews."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from django.contrib.auth import get_user_model
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from ..database.expiry import SKEW
from ..database.failures import KNOWN_TO_NEED_PERSON, MAX_PAUSE, MAX_PAUSE_FOR_PERSON
from ..models import AIRiskToken, AIRiskTokenQuerySet
from ..oauth.deployment import Deployment

#: The columns that a sweep writes for a token that it cannot even try to renew; see :func:`note_trouble`.
TROUBLE_COLUMNS: Final = ("failing_since", "failure_count", "failure_kind")


def is_known_to_need_person(token: AIRiskToken) -> bool:
    """Tell whether an earlier renewal or sweep has found that this token needs a person."""
    return token.needs_person or (token.failing_since is not None and token.failure_count == 0)


def note_trouble(token: AIRiskToken, now: datetime) -> None:
    """Set :data:`TROUBLE_COLUMNS`, without saving: failing since now, although no renewal has failed.

    No other process is kept from renewing the token: that one may have the right key.
    """
    token.failing_since, token.failure_count, token.failure_kind = now, 0, ""


@dataclass(frozen=True)
class Selection:
    """Tokens of one deployment that are to be renewed.

    :ivar within: those that expire within this time; ``None``: all, whatever their expiry, last use or retry pause.
    :ivar user_id: only this user's token.
    :ivar pks: only these rows.
    :ivar limit: at most this many tokens.
    :ivar began: when the sweep began. A token that was renewed since then is not selected again, however short its
        lifetime is.
    """

    deployment: Deployment
    _: KW_ONLY
    within: timedelta | None = timedelta(minutes=10)
    user_id: Any = None
    pks: Sequence[Any] | None = None
    limit: int | None = None
    began: datetime = field(default_factory=lambda: timezone.now())

    def candidates(self) -> AIRiskTokenQuerySet:
        """Return the tokens that are still to be renewed."""
        return self._due(self._chosen().exclude(of_deactivated_users()))

    def total(self) -> int:
        number = self.candidates().count()
        return number if self.limit is None else min(number, self.limit)

    def deactivated(self) -> int:
        """Return how many tokens are left out, although they or their user were named, because the user is inactive."""
        if self.user_id is None and self.pks is None:
            return 0
        return self._due(self._chosen().filter(of_deactivated_users())).count()

    def paused(self) -> int:
        """Return how many tokens are due and left out, because renewing them failed and is retried later.

        Those that are known to need a person are not counted: they were reported when that was found out.
        """
        if self.within is None:
            return 0
        tokens = self._chosen().exclude(of_deactivated_users()).exclude(KNOWN_TO_NEED_PERSON)
        return self._expiring(tokens, self.within).exclude(self._is_not_paused()).count()

    def fresh(self) -> AIRiskTokenQuerySet:
        """Return the candidates that are not known to need a person."""
        return self.candidates().exclude(KNOWN_TO_NEED_PERSON)

    def known(self) -> AIRiskTokenQuerySet:
        """Return the candidates that were known to need a person before this sweep began."""
        return self.candidates().filter(KNOWN_TO_NEED_PERSON).exclude(self._found_meanwhile())

    def _found_meanwhile(self) -> Q:
        """Return whether a token has failed since the sweep began, most likely in this sweep."""
        latest = timezone.now() + SKEW
        return Q(failing_since__gt=self.began, failing_since__lte=latest) | Q(
            failed_at__gt=self.began, failed_at__lte=latest
        )

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
        # A time ahead of now was written by a wrong clock: nothing waits for it.
        tokens = tokens.filter(Q(renewed_at__lte=self.began) | Q(renewed_at__gt=now + SKEW))
        if self.within is None:
            return tokens
        return self._expiring(tokens, self.within).filter(self._is_not_paused())

    def _expiring(self, tokens: AIRiskTokenQuerySet, within: timedelta) -> AIRiskTokenQuerySet:
        """Return those that expire within this time and are in use."""
        return tokens.filter(
            expires_at__lte=self.began + within,
            last_used_at__gte=self.began - timedelta(days=self.deployment.renew_unused_for),
        )

    def _is_not_paused(self) -> Q:
        """Return whether a token may be tried: no failure pauses it, or the pause is longer than any that we set."""
        now = timezone.now()
        too_long = Q(retry_at__gt=now + MAX_PAUSE) & ~Q(failure_kind__in=AIRiskToken.NEEDS_PERSON)
        far_too_long = Q(retry_at__gt=now + MAX_PAUSE_FOR_PERSON)
        return Q(retry_at=None) | Q(retry_at__lte=self.began) | Q(failed_at__gt=now + SKEW) | too_long | far_too_long


def of_deactivated_users() -> Q:
    """Return whether a token's user is deactivated; always false where the user model has no such column."""
    users = get_user_model()
    if not has_is_active_column():
        return Q(pk__in=[])
    # Not a join: PostgreSQL cannot lock the rows of an outer one.
    return Q(Exists(users._base_manager.filter(pk=OuterRef("user"), is_active=False)))


def has_is_active_column() -> bool:
    return any(field.name == "is_active" for field in get_user_model()._meta.concrete_fields)
