"""The state a stored token is in, as one database expression: lists and filters never open a token."""

from datetime import datetime, timedelta
from typing import Any

from django.db.models import (
    Case,
    CharField,
    Count,
    Exists,
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
from django.db.models.lookups import LessThanOrEqual
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from .. import conf, sealing
from ..database.expiry import SKEW
from ..models import AIRiskIdentity, AIRiskToken, SealingPolicy
from ..oauth.deployment import Deployment


class Status(TextChoices):
    LIVE = "live", _("live")
    ENDING = "ending", _("about to end")
    ENDED = "ended", _("ended")
    RECONNECT = "reconnect", _("needs reconnecting")
    FAILING = "failing", _("failing")
    UNREADABLE = "unreadable", _("unreadable")
    AWAITED = "awaited", _("not obtained yet")


def explanation(token: AIRiskToken) -> str:
    """Return what a token's state comes from where its last failure does not tell, for a person; empty where it does.

    :param token: one that :func:`with_state` annotated.
    """
    state = getattr(token, "state")  # noqa: B009 - an annotation
    if token.deployment not in conf.aliases():
        return gettext("the settings name no such deployment")
    if state == Status.UNREADABLE:
        return gettext("the stored token cannot be opened")
    if token.user is not None and not getattr(token.user, "is_active", True):
        return gettext("the user is deactivated")
    if state == Status.ENDED:
        return gettext("the next call renews it")
    if state != Status.RECONNECT or token.needs_person:
        return ""
    if token.is_expired and not conf.deployment(token.deployment).silent_renewal:
        return gettext("a person has to connect")
    if not token.is_from(conf.deployment(token.deployment)):
        return gettext("the token is of another address of AIRisk: the user has to connect again")
    return gettext("the user's identity on AIRisk is gone or has changed")


def count_by_status(tokens: "QuerySet[AIRiskToken]") -> dict[Status, int]:
    """Return how many of these tokens are in each state, those states left out that none is in."""
    annotated: Any = with_status(tokens.order_by())
    found = dict(annotated.values_list("state").annotate(Count("pk")))
    return {state: found[state] for state in Status if state in found}


def with_status(tokens: "QuerySet[AIRiskToken]") -> "QuerySet[AIRiskToken]":
    """Annotate tokens with ``state``, a :class:`State`: of those that apply, the most pressing one."""
    now = timezone.now()
    deployments = [conf.deployment(alias) for alias in conf.aliases()]
    keys = sealing.key_ids(derived_keys_accepted=not sealing.has_own_keys() or SealingPolicy.derived_keys_accepted())
    return tokens.annotate(
        state=Case(
            When(~Q(sealed="") & ~Q(key_id__in=keys), then=Value(Status.UNREADABLE)),
            When(_needs_person(deployments, now), then=Value(Status.RECONNECT)),
            When(failure_count__gt=0, then=Value(Status.FAILING)),
            When(sealed="", then=Value(Status.AWAITED)),
            When(_is_ended(now), then=Value(Status.ENDED)),
            *(When(_is_due(deployment, now), then=Value(Status.ENDING)) for deployment in deployments),
            default=Value(Status.LIVE),
            output_field=CharField(),
        )
    )


def _needs_person(deployments: list[Deployment], now: datetime) -> Q:
    by_hand = [deployment.alias for deployment in deployments if not deployment.silent_renewal]
    by_identity = [deployment.alias for deployment in deployments if deployment.userid == Deployment.userid]
    same_identity = AIRiskIdentity.objects.filter(
        user=OuterRef("user"), deployment=OuterRef("deployment"), userid=OuterRef("userid")
    )
    here = [Q(deployment=deployment.alias, origin__in=["", deployment.origin_text]) for deployment in deployments]
    from_elsewhere = Q(deployment__in=[each.alias for each in deployments], user__isnull=False)
    for each in here:
        from_elsewhere &= ~each
    return (
        Q(failure_kind__in=AIRiskToken.NEEDS_PERSON)
        | from_elsewhere
        | Q(deployment__in=by_hand) & _is_ended(now)
        | Q(~Exists(same_identity), deployment__in=by_identity, user__isnull=False)
    )


def _is_ended(now: datetime) -> Q:
    """Tell in SQL what ``AIRiskToken.is_expired_at`` tells of one token."""
    return Q(expires_at__lte=now + SKEW) & _has_left(8, now)


def _is_due(deployment: Deployment, now: datetime) -> Q:
    """Tell in SQL what ``AIRiskToken.renew_at`` tells of one token."""
    soon = Q(deployment=deployment.alias, expires_at__lte=now + timedelta(seconds=deployment.renew_before))
    return soon & _has_left(4, now)


def _has_left(part: int, now: datetime) -> Q:
    """Return whether at most one of so many parts of a token's life is left, or its times cannot be right."""
    end = _Seconds(F("expires_at"))
    parts, life = (end - now.timestamp()) * part, end - _Seconds(F("renewed_at"))
    return Q(renewed_at__gte=F("expires_at")) | Q(LessThanOrEqual(parts, life))


class _Seconds(Func):
    """A moment in seconds since 1970: what databases do with durations differs, and MySQL multiplies none."""

    output_field = FloatField()

    def as_postgresql(self, compiler: Any, connection: Any, **more: Any) -> Any:
        return self.as_sql(
            compiler, connection, template="EXTRACT(EPOCH FROM %(expressions)s)::double precision", **more
        )

    def as_sqlite(self, compiler: Any, connection: Any, **more: Any) -> Any:
        return self.as_sql(
            compiler, connection, template="((julianday(%(expressions)s) - 2440587.5) * 86400.0)", **more
        )

    def as_mysql(self, compiler: Any, connection: Any, **more: Any) -> Any:
        return self.as_sql(
            compiler, connection, template="(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', %(expressions)s) / 1e6)", **more
        )
