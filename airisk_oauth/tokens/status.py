"""The status of a stored token, as one database expression: lists and filters decrypt no token."""

from collections import Counter
from datetime import datetime, timedelta
from typing import Any, Final, cast

from django.db import connections
from django.db.models import (
    BooleanField,
    Case,
    CharField,
    Count,
    Exists,
    ExpressionWrapper,
    F,
    FloatField,
    Func,
    OuterRef,
    Q,
    QuerySet,
    TextChoices,
    Value,
    When,
)
from django.db.models.functions import Coalesce
from django.db.models.lookups import GreaterThan, LessThanOrEqual
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from .. import conf, sealing
from ..database.expiry import SKEW
from ..models import AIRiskIdentity, AIRiskToken, SealingPolicy
from ..oauth.deployment import Deployment
from .report import BY_HAND, DEACTIVATED, IDENTITY_CHANGED, OTHER_ADDRESS


class Status(TextChoices):
    """What a token is good for. The values are part of URLs and CSS classes."""

    VALID = "live", _("valid")
    EXPIRES_SOON = "ending", _("expires soon")
    EXPIRED = "ended", _("expired")
    RECONNECT = "reconnect", _("reconnect needed")
    FAILING = "failing", _("failing")
    UNREADABLE = "unreadable", _("cannot be decrypted")
    AWAITED = "awaited", _("not obtained yet")


#: At most this many rows are found again by their keys.
FEW: Final = 1_000
#: How many tokens have which status, by deployment.
Counts = Counter[tuple[str, Status]]


def status_of(token: AIRiskToken) -> Status:
    """Return the status of a token that :func:`with_status` annotated."""
    return Status(cast("Any", token).status)


def explanation(token: AIRiskToken) -> str:
    """Return, in the active language, why a token has its status; empty where its last failure says so.

    :param token: one that :func:`with_status` annotated.
    """
    status = status_of(token)
    if conf.is_unknown(token.deployment):
        return gettext("the settings have no deployment “%(alias)s”") % {"alias": token.deployment}
    if status == Status.UNREADABLE:
        return gettext("its encryption key is not in the settings")
    if token.user is not None and not getattr(token.user, "is_active", True):
        return gettext(DEACTIVATED)
    if status == Status.EXPIRED:
        return gettext("the next call renews it")
    if status != Status.RECONNECT or token.needs_person:
        return ""
    for deployment in conf.usable([token.deployment]):
        if token.is_expired and not deployment.silent_renewal:
            return gettext(BY_HAND)
        if not token.is_from(deployment):
            return gettext(OTHER_ADDRESS)
    return gettext(IDENTITY_CHANGED)


def count_by_deployment(tokens: "QuerySet[AIRiskToken]") -> Counts:
    """Return how many of these tokens each deployment has in each status.

    Identities are compared in queries of their own: a database can compare all of them at once, but looks up one for
    each token if that is a part of a larger expression.
    """
    counts = _count(tokens)
    others = tokens.order_by().filter(has_other_identity())
    # First only their keys, because to compare whole rows a database might have to write them to the disk.
    keys = list(others.values_list("pk", flat=True)[: FEW + 1])
    if keys:
        for (deployment, status), number in _count(tokens.filter(pk__in=keys) if len(keys) <= FEW else others).items():
            if status not in (Status.UNREADABLE, Status.RECONNECT):
                counts[deployment, status] -= number
                counts[deployment, Status.RECONNECT] += number
    # A token that changed between the queries may have been counted only in the last one.
    return +counts


def total_by_status(counts: Counts) -> dict[Status, int]:
    """Return how many tokens have each status in all deployments; a status that none has is left out."""
    totals: Counter[Status] = Counter()
    for (_deployment, status), number in counts.items():
        totals[status] += number
    return {status: totals[status] for status in Status if status in totals}


def _count(tokens: "QuerySet[AIRiskToken]") -> Counts:
    """Count tokens without comparing identities."""
    # Not the column itself: SQLite would read the whole table in the order of an index on it.
    rows = tokens.order_by().annotate(alias=Coalesce("deployment", Value("")))
    if connections[rows.db].vendor == "postgresql":
        return _count_by_conditions(rows)
    groups = rows.annotate(status=_first_of(_conditions())).values_list("alias", "status").annotate(Count("pk"))
    return Counter({(deployment, Status(status)): number for deployment, status, number in groups})


def _count_by_conditions(rows: Any) -> Counts:
    """Count rows grouped by conditions.

    PostgreSQL knows that a condition makes two groups. For any other expression it expects almost as many groups as
    rows, and sorts all rows.
    """
    conditions = _conditions()
    applies = {f"is_{status.value}": ExpressionWrapper(q, BooleanField()) for status, q in conditions.items()}
    counts: Counts = Counter()
    for alias, *applying, number in rows.annotate(**applies).values_list("alias", *applies).annotate(Count("pk")):
        status = next((each for each, applied in zip(conditions, applying, strict=True) if applied), Status.VALID)
        counts[alias, status] += number
    return counts


def with_status(tokens: "QuerySet[AIRiskToken]") -> "QuerySet[AIRiskToken]":
    """Annotate tokens with ``status``, a value of :class:`Status`: the most urgent of those that apply."""
    conditions = _conditions()
    conditions[Status.RECONNECT] |= has_other_identity()
    return tokens.annotate(status=_first_of(conditions))


def _first_of(conditions: dict[Status, Q]) -> Case:
    cases = (When(condition, then=Value(status)) for status, condition in conditions.items())
    return Case(*cases, default=Value(Status.VALID), output_field=CharField())


def _conditions() -> dict[Status, Q]:
    """Return what is true of tokens with each status but ``VALID``, most urgent first; identities are not compared."""
    now = timezone.now()
    deployments = _deployments()
    return {
        Status.UNREADABLE: _is_unreadable(),
        Status.RECONNECT: _needs_person(deployments, now),
        Status.FAILING: Q(failure_count__gt=0),
        Status.AWAITED: Q(sealed=""),
        Status.EXPIRED: _is_expired(now),
        Status.EXPIRES_SOON: Q(Q(pk__in=[]), *(_is_due(each, now) for each in deployments), _connector=Q.OR),
    }


def implied_by(status: str) -> Q:
    """Return what is true of every token with this status, as plain conditions on columns.

    A database rules out most rows by these, before it works out the status of any. It reads the rows in the order of
    the list for that: by an index on the expiry it might have to sort most of the table for one page.
    """
    expires_at = Coalesce("expires_at", "expires_at")
    now = timezone.now()
    later = Q(GreaterThan(expires_at, now - SKEW))
    works = Q(failure_count=0) & ~Q(sealed="")
    soonest = max((each.renew_before for each in _deployments()), default=0)
    conditions = {
        Status.VALID: works & (Q(expires_at=None) | later),
        Status.EXPIRES_SOON: works & later & Q(LessThanOrEqual(expires_at, now + timedelta(seconds=soonest))),
        Status.EXPIRED: works & Q(LessThanOrEqual(expires_at, now + SKEW)),
        Status.FAILING: Q(failure_count__gt=0),
        Status.UNREADABLE: _is_unreadable(),
        Status.AWAITED: Q(sealed=""),
    }
    return conditions.get(cast("Any", status), Q())


def has_other_identity() -> Q:
    """Return whether a token was issued for another userid than the one that its user's identity names now."""
    by_identity = [each.alias for each in _deployments() if each.userid == Deployment.userid]
    same_identity = AIRiskIdentity.objects.filter(
        user=OuterRef("user"), deployment=OuterRef("deployment"), userid=OuterRef("userid")
    )
    return Q(~Exists(same_identity), deployment__in=by_identity, user__isnull=False)


def _deployments() -> list[Deployment]:
    return conf.usable(conf.known_aliases())


def _is_unreadable() -> Q:
    """Return whether we do not have a token's key; always false while the function that returns the keys fails."""
    if sealing.KEYS.failure():
        return Q(pk__in=[])
    keys = sealing.key_ids(derived_keys_accepted=not sealing.has_own_keys() or SealingPolicy.derived_keys_accepted())
    return ~Q(sealed="") & ~Q(key_id__in=keys)


def _needs_person(deployments: list[Deployment], now: datetime) -> Q:
    by_hand = [deployment.alias for deployment in deployments if not deployment.silent_renewal]
    here = [Q(deployment=deployment.alias, origin__in=["", deployment.origin_text]) for deployment in deployments]
    from_elsewhere = Q(deployment__in=[each.alias for each in deployments], user__isnull=False)
    for each in here:
        from_elsewhere &= ~each
    return Q(failure_kind__in=AIRiskToken.NEEDS_PERSON) | from_elsewhere | Q(deployment__in=by_hand) & _is_expired(now)


def _is_expired(now: datetime) -> Q:
    """Return in SQL what ``AIRiskToken.is_expired_at`` returns for one token."""
    return Q(expires_at__lte=now + SKEW) & _has_left(8, now)


def _is_due(deployment: Deployment, now: datetime) -> Q:
    """Return in SQL whether ``AIRiskToken.renew_at`` of one token has passed."""
    soon = Q(deployment=deployment.alias, expires_at__lte=now + timedelta(seconds=deployment.renew_before))
    return soon & _has_left(4, now)


def _has_left(part: int, now: datetime) -> Q:
    """Return whether at most this part of a token's lifetime is left (4: a quarter), or its times cannot be right."""
    expires_at = _Seconds(F("expires_at"))
    parts, lifetime = (expires_at - now.timestamp()) * part, expires_at - _Seconds(F("renewed_at"))
    return Q(renewed_at__gte=F("expires_at")) | Q(LessThanOrEqual(parts, lifetime))


class _Seconds(Func):
    """A time in seconds since 1970: databases differ in what they do with durations, and MySQL cannot multiply them."""

    output_field = FloatField()

    def as_postgresql(self, compiler: Any, connection: Any, **more: Any) -> Any:
        # EXTRACT returns a decimal number, which is slow to work out.
        return self.as_sql(compiler, connection, template="date_part('epoch', %(expressions)s)", **more)

    def as_sqlite(self, compiler: Any, connection: Any, **more: Any) -> Any:
        return self.as_sql(
            compiler, connection, template="((julianday(%(expressions)s) - 2440587.5) * 86400.0)", **more
        )

    def as_mysql(self, compiler: Any, connection: Any, **more: Any) -> Any:
        return self.as_sql(
            compiler, connection, template="(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', %(expressions)s) / 1e6)", **more
        )
