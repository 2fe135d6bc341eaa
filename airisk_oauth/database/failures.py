"""The last failed renewal of a token, and how long renewing is paused because of it."""

import random
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final

from django.db import models
from django.utils.translation import gettext_lazy as _

from ..exceptions import (
    AIRiskError,
    AIRiskInvalidResponse,
    AIRiskRefused,
    AIRiskUnavailable,
    ConnectionRequired,
)

COOL_DOWN: Final = timedelta(seconds=30)
MAX_COOL_DOWN: Final = timedelta(hours=1)
#: The same for failures that only a person can fix.
MAX_COOL_DOWN_FOR_PERSON: Final = timedelta(days=1)
#: A cool-down is multiplied by up to this much, so that tokens that failed together are not all retried together.
SPREAD: Final = 1.2
#: No cool-down is longer than this; a longer one was stored by a wrong clock.
MAX_PAUSE: Final = MAX_COOL_DOWN * SPREAD
MAX_PAUSE_FOR_PERSON: Final = MAX_COOL_DOWN_FOR_PERSON * SPREAD


class FailureModel(models.Model):
    class Failure(models.TextChoices):
        REFUSED = "refused", _("refused by AIRisk")
        PERSON = "person", _("AIRisk requires a sign-in")
        UNAVAILABLE = "unavailable", _("AIRisk unavailable")
        INVALID = "invalid", _("unusable response")

        @classmethod
        def of(cls, error: AIRiskError) -> "FailureModel.Failure":
            """Return the kind of failure that an error is recorded as."""
            return _KINDS.get(type(error), cls.INVALID)

    #: Failures that only a person can fix.
    NEEDS_PERSON: ClassVar[tuple[str, ...]] = (Failure.REFUSED, Failure.PERSON)

    failed_at = models.DateTimeField(_("last failure"), null=True, blank=True)
    failing_since = models.DateTimeField(_("failing since"), null=True, blank=True)
    failure_count = models.PositiveIntegerField(_("consecutive failures"), default=0)
    failure_kind = models.CharField(_("kind of failure"), max_length=12, choices=Failure, blank=True, default="")
    failure_status = models.PositiveSmallIntegerField(_("AIRisk's status"), null=True, blank=True)
    failure_reason = models.CharField(_("AIRisk's reason"), max_length=120, blank=True, default="")
    failure_trace_id = models.CharField(_("AIRisk's traceId"), max_length=128, blank=True, default="")
    retry_at = models.DateTimeField(_("next attempt not before"), null=True, blank=True)
    refused_anew_at = models.DateTimeField(_("rejected although new"), null=True, blank=True)

    deployment: Any

    class Meta:
        abstract = True

    @property
    def needs_person(self) -> bool:
        """Whether the last renewal failed in a way that only a person can fix."""
        return self.failure_kind in self.NEEDS_PERSON

    def is_paused(self, now: datetime) -> bool:
        """Tell whether the token is cooling down: after a recent failure it is not renewed before it expires."""
        longest = MAX_PAUSE_FOR_PERSON if self.needs_person else MAX_PAUSE
        return self.retry_at is not None and now < self.retry_at <= now + longest

    def record_failure(self, error: AIRiskError, now: datetime) -> dict[str, Any]:
        """Record a failed renewal, without saving, and return the changed columns with their values.

        The token is kept. Until ``retry_at`` nobody renews it before it expires.
        """
        kind = self.Failure.of(error)
        longest = MAX_COOL_DOWN_FOR_PERSON if kind in self.NEEDS_PERSON else MAX_COOL_DOWN
        pause = min(COOL_DOWN * 2 ** min(self.failure_count, 20), longest)
        asked = timedelta(seconds=getattr(error, "retry_after", None) or 0)
        noted = {
            "failed_at": now,
            "failing_since": self.failing_since or now,
            "failure_count": self.failure_count + 1,
            "failure_kind": kind,
            "failure_status": getattr(error, "status", None),
            "failure_reason": getattr(error, "reason", ""),
            "failure_trace_id": getattr(error, "trace_id", ""),
            "retry_at": now + max(pause * random.uniform(1, SPREAD), asked),  # noqa: S311 - only spreads the load
        }
        for name, value in noted.items():
            setattr(self, name, value)
        return noted

    def last_error(self) -> AIRiskError:
        """Return the error that the last renewal failed with."""
        if self.failure_kind == self.Failure.REFUSED:
            return AIRiskRefused(self.failure_status or 0, self.failure_reason, self.failure_trace_id)
        if self.failure_kind == self.Failure.PERSON:
            return ConnectionRequired("AIRisk requires a sign-in in a browser.", deployment=self.deployment)
        if self.failure_kind == self.Failure.UNAVAILABLE:
            return AIRiskUnavailable("AIRisk was not available a moment ago.")
        return AIRiskInvalidResponse("AIRisk's answer could not be used a moment ago.")


#: Rows whose token needs a person, as a renewal or a sweep has found; see ``tokens.selection.note_trouble``.
KNOWN_TO_NEED_PERSON: Final = models.Q(failure_kind__in=FailureModel.NEEDS_PERSON) | models.Q(
    failing_since__isnull=False, failure_count=0
)

#: The columns of a failure with the values that mean there has been none since the token was issued.
NO_FAILURE: Final[dict[str, Any]] = {field.name: field.get_default() for field in FailureModel._meta.local_fields}

_KINDS: Final[dict[type[AIRiskError], FailureModel.Failure]] = {
    AIRiskRefused: FailureModel.Failure.REFUSED,
    ConnectionRequired: FailureModel.Failure.PERSON,
    AIRiskUnavailable: FailureModel.Failure.UNAVAILABLE,
}
