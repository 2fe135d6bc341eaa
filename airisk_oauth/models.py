"""Who a user is on AIRisk, their tokens, and authorizations that have been started. Makes no requests."""

from contextlib import nullcontext
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self, cast

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import connections, models, transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from . import conf, sealing
from .database.constraints import PartialUniqueConstraint, prefix_index
from .database.expiry import ExpiringModel
from .database.failures import NO_FAILURE, FailureModel
from .database.fields import ExactCharField, UnsearchableTextField
from .database.querysets import PrimaryManager, PrimaryQuerySet
from .database.transactions import retrying

if TYPE_CHECKING:
    from .oauth.deployment import Deployment
    from .oauth.messages import Secret, TokenGrant

#: How many authorizations a user can have started and not completed at a time.
MAX_PENDING: Final = 10
#: How long an authorization is kept, so that a repeated callback is recognized, and how many are deleted at a time.
KEEP_SPENT: Final = timedelta(hours=1)
MAX_SWEPT: Final = 1000
MAX_NEXT: Final = 2000
_HELP: Final = _("How pages name this person, for example “Mia Meyer”. If empty: the userid, unless it is a GUID.")


def validate_userid(value: str) -> None:
    if not conf.is_userid(value):
        raise ValidationError(_("This cannot be a userid: it has to be printable, without spaces around it."))


def AliasField() -> ExactCharField:  # noqa: N802 - reads as the field it makes
    return ExactCharField(_("deployment"), max_length=conf.MAX_ALIAS, default=conf.DEFAULT_ALIAS)


UserField = partial(models.ForeignKey, settings.AUTH_USER_MODEL, on_delete=models.CASCADE, verbose_name=_("user"))


class AIRiskIdentity(models.Model):
    """Who a Django user is on an AIRisk deployment. Staff enter this; what a browser sends never changes it."""

    user = UserField(related_name="airisk_identities")
    deployment = AliasField()
    userid = ExactCharField(
        "userid",
        max_length=conf.MAX_USERID,
        validators=[validate_userid],
        help_text=_("The id of this person's ApplicationUser on AIRisk."),
    )
    # With a default in the database, because the previous version stores identities while this one is rolled out.
    label = models.CharField(
        _("displayed name"), max_length=conf.MAX_LABEL, blank=True, default="", db_default="", help_text=_HELP
    )
    objects = PrimaryManager()

    class Meta:
        verbose_name = _("AIRisk identity")
        verbose_name_plural = _("AIRisk identities")
        constraints = [models.UniqueConstraint(fields=["user", "deployment"], name="airisk_oauth_one_identity")]
        indexes = [prefix_index("userid", "airisk_oauth_identity_userid"), prefix_index("label", "airisk_oauth_label")]

    def __str__(self) -> str:
        return f"{self.userid} ({self.deployment})"


class AIRiskTokenQuerySet(PrimaryQuerySet):
    def owned_by(self, user_id: Any, deployment: str) -> Self:
        """Return a queryset of the user's one token, or of none; ``None`` owns no token."""
        return self.none() if user_id is None else self.filter(user=user_id, deployment=deployment)

    def of_application(self, deployment: str) -> Self:
        """Return a queryset of the application's one token, or of none."""
        return self.filter(user=None, deployment=deployment)


class AIRiskToken(ExpiringModel, FailureModel):
    """The token of one user for one deployment; without a user, the application's own.

    The application's row can exist before its first token, with ``sealed`` empty, so that a worker can lease it.
    """

    user = UserField(related_name="airisk_tokens", null=True, blank=True)
    deployment = AliasField()
    userid = ExactCharField("userid", max_length=conf.MAX_USERID, blank=True, default="")
    sealed = UnsearchableTextField(_("encrypted token"), blank=True, default="", editable=False)
    key_id = models.CharField(_("key"), max_length=12, blank=True, default="", editable=False)
    # With a default in the database, because the previous version stores tokens while this one is rolled out.
    origin = ExactCharField(max_length=300, blank=True, default="", db_default="", editable=False)
    obtained_at = models.DateTimeField(_("obtained"), default=timezone.now)
    last_used_at = models.DateTimeField(_("last used"), default=timezone.now)
    lease = models.UUIDField(null=True, blank=True, editable=False)
    lease_until = models.DateTimeField(null=True, blank=True, editable=False)
    # When it was announced that the connection is lost; cleared by the announcement that it works again.
    lost_at = models.DateTimeField(null=True, blank=True, editable=False)
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
        indexes = [
            models.Index(fields=["deployment", "expires_at", "id"], name="airisk_oauth_expiry"),
            prefix_index("userid", "airisk_oauth_token_userid"),
            prefix_index("failure_trace_id", "airisk_oauth_trace_id"),
        ]

    def __str__(self) -> str:
        return f"{self.userid or _('the application')} ({self.deployment})"

    @property
    def requested_userid(self) -> str | None:
        """The ``userid`` to request a token for; ``None``, for the application only, requests the generic token."""
        return None if self.user_id is None else self.userid

    def insert(self, using: str) -> None:
        """Insert this row.

        Inside a transaction a savepoint is used, so that the transaction survives if there is such a row already.

        :raises IntegrityError: there is a token of this owner already.
        """
        with transaction.atomic(using=using) if connections[using].in_atomic_block else nullcontext():
            retrying(using, lambda: self.save(using=using, force_insert=True))

    @property
    def owner(self) -> sealing.Owner:
        if self.user_id is None:
            if self.user is not None:
                raise ValueError("Save the user before its token: a token is encrypted for the user it belongs to.")
            return self.deployment, None, self.userid
        return self.deployment, str(get_user_model()._meta.pk.to_python(self.user_id)), self.userid

    @property
    def access_token(self) -> "Secret":
        """The token itself, which is decrypted when it is read and encrypted when it is set.

        :raises airisk_oauth.sealing.Unreadable: it was encrypted with a key that is gone, or for another owner.
        """
        return sealing.unseal(self.sealed, self.owner, self.key_id, SealingPolicy.derived_keys_accepted)

    @access_token.setter
    def access_token(self, token: str) -> None:
        """Store a token that was obtained elsewhere.

        :raises ValueError: it cannot be sent as a bearer token (RFC 6750, section 2.1).
        """
        from .oauth.messages import is_access_token

        if not is_access_token(token):
            raise ValueError("This is not an access token: RFC 6750 allows letters, digits and -._~+/, then = signs.")
        self.sealed, self.key_id = sealing.seal(token, self.owner)
        self.origin = conf.deployment_origin(self.deployment)

    def is_from(self, deployment: "Deployment") -> bool:
        """Tell whether this token was issued at the deployment's present origin; assumed if its origin is unknown."""
        return self.origin in ("", deployment.origin_text)

    def apply(self, grant: "TokenGrant", now: datetime) -> dict[str, Any]:
        """Replace the token by a new one, without saving, and return the changed columns with their values."""
        sealed, key_id = sealing.seal(grant.access_token, self.owner)
        issued = {"sealed": sealed, "key_id": key_id, "origin": grant.origin, "expires_at": grant.expires_at}
        values = issued | {"renewed_at": now} | NO_FAILURE
        for name, value in values.items():
            setattr(self, name, value)
        return values


class SealingPolicy(models.Model):
    """If there is a row, a site with its own keys no longer decrypts with keys derived from ``SECRET_KEY``."""

    derived_dropped_at = models.DateTimeField(default=timezone.now)
    objects = PrimaryManager()

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


class PendingAuthorizationManager(PrimaryManager["PendingAuthorization"]):
    def begin(self, **values: Any) -> "PendingAuthorization":
        """Save a started authorization; delete this user's pending ones except the ten newest, and all old ones."""
        now = timezone.now()
        rows = self.primary()
        pending = retrying(rows.db, lambda: rows.create(created_at=now, **values))
        since = now - KEEP_SPENT
        found = self.primary().filter(Q(user=pending.user_id, spent_at=None) | Q(created_at__lt=since))
        # Newest first by key, because another host's clock may be ahead. Sorted here: a database might read every row.
        several = sorted(found.values_list("pk", "created_at")[:MAX_SWEPT], reverse=True)
        pks = [pk for pk, created_at in several if created_at < since]
        pks += [pk for pk, created_at in several if created_at >= since][MAX_PENDING:]
        if pks:
            self.primary().filter(pk__in=pks).forget()
        return cast("PendingAuthorization", pending)

    def spend(self, pk: Any) -> bool:
        """Mark a state as used; true for one caller only, however many try at the same time."""
        return self.primary().filter(pk=pk, spent_at=None).write(spent_at=timezone.now()) == 1


class PendingAuthorization(models.Model):
    """A started authorization and what its callback has to match; kept to recognize a repeated callback."""

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
    objects = PendingAuthorizationManager()

    class Meta:
        verbose_name = _("pending authorization")
        verbose_name_plural = _("pending authorizations")

    def __str__(self) -> str:
        return f"{self.deployment}, {self.created_at:%Y-%m-%d %H:%M}"
