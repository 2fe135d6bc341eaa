"""Who is who, the tokens, and the authorizations under way. No HTTP here."""

from contextlib import nullcontext
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, Self, cast

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import connections, models, transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from . import conf, sealing
from .database.constraints import PartialUniqueConstraint
from .database.expiry import ExpiringModel
from .database.failures import NO_FAILURE, FailureModel
from .database.fields import ExactCharField, UnsearchableTextField
from .database.querysets import PrimaryQuerySet
from .database.transactions import retrying
from .oauth.deployment import Deployment
from .oauth.messages import Secret, TokenGrant, is_access_token

#: How many flows a user may have open at once, and how long a started one is remembered.
MAX_PENDING: Final = 10
MAX_SWEPT: Final = 1000
KEEP_SPENT: Final = timedelta(hours=1)
MAX_NEXT: Final = 2000


def validate_userid(value: str) -> None:
    if not conf.is_userid(value):
        raise ValidationError(_("This cannot be a userid: it has to be printable, without spaces around it."))


def AliasField() -> ExactCharField:  # noqa: N802 - reads as the field it makes
    return ExactCharField(_("deployment"), max_length=conf.MAX_ALIAS, default=conf.DEFAULT_ALIAS)


UserField = partial(models.ForeignKey, settings.AUTH_USER_MODEL, on_delete=models.CASCADE, verbose_name=_("user"))


class AIRiskIdentity(models.Model):
    """Who a Django user is on an AIRisk deployment; edited by staff, never by a browser."""

    user = UserField(related_name="airisk_identities")
    deployment = AliasField()
    userid = ExactCharField(
        "userid",
        max_length=conf.MAX_USERID,
        validators=[validate_userid],
        help_text=_("The id of this person's ApplicationUser on AIRisk."),
    )

    objects = PrimaryQuerySet.as_manager()

    class Meta:
        verbose_name = _("AIRisk identity")
        verbose_name_plural = _("AIRisk identities")
        constraints = [
            models.UniqueConstraint(fields=["user", "deployment"], name="airisk_oauth_one_identity"),
        ]

    def __str__(self) -> str:
        return f"{self.userid} ({self.deployment})"


class AIRiskTokenQuerySet(PrimaryQuerySet):
    def owned_by(self, user_id: Any, deployment: str) -> Self:
        """Return the one token of this user, if it is there. Nobody, ``None``, has none."""
        return self.none() if user_id is None else self.filter(user=user_id, deployment=deployment)

    def of_application(self, deployment: str) -> Self:
        """Return the application's one token, if it is there."""
        return self.filter(user=None, deployment=deployment)


class AIRiskToken(ExpiringModel, FailureModel):
    """The token of one user, or without a user of the application, for one deployment.

    A row without a sealed token is the application's before its first one: it is there to be leased.
    """

    user = UserField(related_name="airisk_tokens", null=True, blank=True)
    deployment = AliasField()
    userid = ExactCharField("userid", max_length=conf.MAX_USERID, blank=True, default="")
    sealed = UnsearchableTextField(_("sealed token"), blank=True, default="", editable=False)
    key_id = models.CharField(_("key"), max_length=12, blank=True, default="", editable=False)
    # With a default in the database: while a new version is rolled out, the old one goes on storing tokens.
    origin = ExactCharField(max_length=300, blank=True, default="", db_default="", editable=False)
    obtained_at = models.DateTimeField(_("obtained"), default=timezone.now)
    last_used_at = models.DateTimeField(_("last used"), default=timezone.now)
    lease = models.UUIDField(null=True, blank=True, editable=False)
    lease_until = models.DateTimeField(null=True, blank=True, editable=False)
    objects = AIRiskTokenQuerySet.as_manager()

    class Meta:
        verbose_name = _("AIRisk token")
        verbose_name_plural = _("AIRisk tokens")
        constraints = [
            models.UniqueConstraint(fields=["user", "deployment"], name="airisk_oauth_one_token"),
            PartialUniqueConstraint(
                fields=["deployment"], condition=Q(user=None), name="airisk_oauth_one_application_token"
            ),
        ]
        indexes = [models.Index(fields=["deployment", "expires_at", "id"], name="airisk_oauth_expiry")]

    def __str__(self) -> str:
        return f"{self.userid or _('the application')} ({self.deployment})"

    @property
    def requested_userid(self) -> str | None:
        """The ``userid`` to ask AIRisk for: ``None``, and with it the generic token, for the application only."""
        return None if self.user_id is None else self.userid

    def insert(self, using: str) -> None:
        """Save a new row; inside a transaction so that a row which is there already does not break it."""
        with transaction.atomic(using=using) if connections[using].in_atomic_block else nullcontext():
            retrying(using, lambda: self.save(using=using, force_insert=True))

    @property
    def owner(self) -> sealing.Owner:
        if self.user_id is None:
            if self.user is not None:
                raise ValueError("Save the user before giving it a token: the token is sealed for its owner.")
            return self.deployment, None, self.userid
        user_key = get_user_model()._meta.pk.to_python(self.user_id)
        return self.deployment, str(user_key), self.userid

    @property
    def access_token(self) -> Secret:
        """The token itself; reading it opens the seal, setting it seals at once.

        :raises airisk_oauth.sealing.Unreadable: it was sealed with a key that is gone, or for another owner.
        """
        return sealing.unseal(self.sealed, self.owner, derived_keys_accepted=SealingPolicy.derived_keys_accepted)

    @access_token.setter
    def access_token(self, token: str) -> None:
        """Take a token over that AIRisk gave elsewhere.

        :raises ValueError: this cannot be sent as a bearer (RFC 6750, section 2.1).
        """
        if not is_access_token(token):
            raise ValueError("This is no access token: RFC 6750 allows letters, digits and -._~+/ with = at the end.")
        self.sealed, self.key_id = sealing.seal(token, self.owner)
        self.origin = conf.deployment_origin(self.deployment)

    def is_from(self, deployment: Deployment) -> bool:
        """Tell whether this token was issued by the address that the deployment has now, as far as is known."""
        return self.origin in ("", deployment.origin_text)

    def apply(self, grant: TokenGrant, now: datetime) -> dict[str, Any]:
        """Take over a new token, without saving, and return the columns that this changed with their values."""
        sealed, key_id = sealing.seal(grant.access_token, self.owner)
        issued = {"sealed": sealed, "key_id": key_id, "origin": grant.origin, "expires_at": grant.expires_at}
        values = issued | {"renewed_at": now} | NO_FAILURE
        for name, value in values.items():
            setattr(self, name, value)
        return values


class SealingPolicy(models.Model):
    """A row of this says that keys derived from ``SECRET_KEY`` open no token any more where the site lists keys."""

    derived_dropped_at = models.DateTimeField(default=timezone.now)

    objects = PrimaryQuerySet.as_manager()

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"derived keys dropped at {self.derived_dropped_at:%Y-%m-%d %H:%M}"

    @classmethod
    def derived_keys_accepted(cls) -> bool:
        return not cls.objects.primary().exists()

    @classmethod
    def drop_derived(cls) -> None:
        cls.objects.primary().get_or_create(pk=1)


class PendingAuthorizationQuerySet(PrimaryQuerySet):
    def begin(self, **values: Any) -> "PendingAuthorization":
        """Save a started flow, drop this user's pending ones beyond the newest ten, and everybody's old ones."""
        now = timezone.now()
        rows = self.primary()
        pending = retrying(rows.db, lambda: rows.create(created_at=now, **values))
        # By key, because the clock of another host may be ahead.
        others = self.primary().filter(user=pending.user_id, spent_at=None).order_by("-pk")
        old = self.primary().filter(created_at__lt=now - KEEP_SPENT)
        pks = [*others.values_list("pk", flat=True)[MAX_PENDING:], *old.values_list("pk", flat=True)[:MAX_SWEPT]]
        if pks:
            self.primary().filter(pk__in=pks).forget()
        return cast("PendingAuthorization", pending)

    def spend(self, pk: Any) -> bool:
        """Use a state up; true for one caller only, whoever else tries at the same moment."""
        return self.primary().filter(pk=pk, spent_at=None).write(spent_at=timezone.now()) == 1


class PendingAuthorization(models.Model):
    """A flow that was started: what its callback has to match. Kept a while after, to know a second hit."""

    class Outcome(models.TextChoices):
        OPEN = "", _("open")
        CONNECTED = "connected", _("connected")
        FAILED = "failed", _("failed")

    state_hash = models.CharField(max_length=64, unique=True)
    user = UserField(related_name="+")
    for_application = models.BooleanField(default=False)
    deployment = AliasField()
    userid = ExactCharField(max_length=conf.MAX_USERID, blank=True, default="")
    next = models.CharField(max_length=MAX_NEXT, blank=True, default="")
    browser_hash = models.CharField(max_length=64)
    created_at = models.DateTimeField(db_index=True)
    spent_at = models.DateTimeField(null=True)
    outcome = models.CharField(max_length=12, choices=Outcome, blank=True, default="")

    objects = PendingAuthorizationQuerySet.as_manager()

    class Meta:
        verbose_name = _("pending authorization")
        verbose_name_plural = _("pending authorizations")

    def __str__(self) -> str:
        return f"{self.deployment}, {self.created_at:%Y-%m-%d %H:%M}"
