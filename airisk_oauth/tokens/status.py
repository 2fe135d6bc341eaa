"""The status of a stored token, as one database expression: lists and filters decrypt no token."""

from datetime import datetime, timedelta
from typing import Any, cast

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


def count_by_status(tokens: "QuerySet[AIRiskToken]") -> dict[Status, int]:
    """Return how many of these tokens have each status; a status that none has is left out."""
    annotated: Any = with_status(tokens.order_by())
    found = dict(annotated.values_list("status").annotate(Count("pk")))
    return {status: found[status] for status in Status if status in found}


def with_status(tokens: "QuerySet[AIRiskToken]") -> "QuerySet[AIRiskToken]":
    """Annotate tokens with ``status``, a value of :class:`Status`: the most urgent of those that apply."""
    now = timezone.now()
    deployments = conf.usable(conf.known_aliases())
    return tokens.annotate(
        status=Case(
            When(_is_unreadable(), then=Value(Status.UNREADABLE)),
            When(_needs_person(deployments, now), then=Value(Status.RECONNECT)),
            When(failure_count__gt=0, then=Value(Status.FAILING)),
            When(sealed="", then=Value(Status.AWAITED)),
            When(_is_expired(now), then=Value(Status.EXPIRED)),
            *(When(_is_due(deployment, now), then=Value(Status.EXPIRES_SOON)) for deployment in deployments),
            default=Value(Status.VALID),
            output_field=CharField(),
        )
    )


def _is_unreadable() -> Q:
    """Return whether we do not have a token's key; always false while the function that returns the keys fails."""
    if sealing.KEYS.failure():
        return Q(pk__in=[])
    keys = sealing.key_ids(derived_keys_accepted=not sealing.has_own_keys() or SealingPolicy.derived_keys_accepted())
    return ~Q(sealed="") & ~Q(key_id__in=keys)


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
        | Q(deployment__in=by_hand) & _is_expired(now)
        | Q(~Exists(same_identity), deployment__in=by_identity, user__isnull=False)
    )


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
