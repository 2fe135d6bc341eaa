"""A user's recent activity with AIRisk, for the home page."""

from typing import Any, ClassVar, Final

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _

from airisk_oauth.models import AIRiskToken

#: How many events are kept for each user.
KEPT: Final = 50


class EventManager(models.Manager["Event"]):
    def record(self, user_id: Any, kind: "Event.Kind", failure: str = "") -> None:
        """Save an event, and delete this user's oldest ones."""
        self.create(user_id=user_id, kind=kind, failure=failure)
        old = self.filter(user=user_id).order_by("-pk").values_list("pk", flat=True)[KEPT:]
        self.filter(pk__in=list(old)).delete()


class Event(models.Model):
    """Something that happened to a user's token or was done with it; the token itself is not in it."""

    class Kind(models.TextChoices):
        CONNECTED = "connected", _("Connected to AIRisk")
        RENEWED = "renewed", _("Token renewed")
        FAILED = "failed", _("Token not renewed")
        DISCONNECTED = "disconnected", _("Disconnected, token forgotten")
        FETCHED = "fetched", _("Conversations fetched")

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    kind = models.CharField(max_length=12, choices=Kind)
    failure = models.CharField(max_length=12, blank=True, default="")
    happened_at = models.DateTimeField(auto_now_add=True)

    objects: ClassVar[EventManager] = EventManager()

    class Meta:
        app_label = "demo_project"
        verbose_name = _("event")
        verbose_name_plural = _("events")

    def __str__(self) -> str:
        return f"{self.kind}, {self.happened_at:%Y-%m-%d %H:%M}"

    def get_failure_display(self) -> str:
        """Return the package's name for the failure, which can change without a migration here."""
        return str(AIRiskToken.Failure(self.failure).label) if self.failure else ""
