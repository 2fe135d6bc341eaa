"""When a token expires, and when it is due for renewal."""

from datetime import datetime, timedelta
from typing import Final

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

#: A token this close to its expiry counts as expired: clocks differ.
SKEW: Final = timedelta(seconds=10)


def is_recent(then: datetime | None, now: datetime, within: timedelta) -> bool:
    """Tell whether a stored time is less than ``within`` away from now, in the past or in the future.

    A time that is further in the future was written by a wrong clock.
    """
    return then is not None and abs(now - then) < within


class ExpiringModel(models.Model):
    expires_at = models.DateTimeField(_("expires"), null=True, blank=True)
    renewed_at = models.DateTimeField(_("last renewed"), default=timezone.now)

    class Meta:
        abstract = True

    @property
    def is_expired(self) -> bool:
        return self.is_expired_at(timezone.now())

    def is_expired_at(self, now: datetime) -> bool:
        return self.expires_at is not None and self.expires_at <= now + self.skew

    @property
    def skew(self) -> timedelta:
        """How long before ``expires_at`` the token counts as expired: 10 s, or less if its lifetime is short."""
        return min(SKEW, self._lifetime / 8) if self._lifetime else SKEW

    @property
    def _lifetime(self) -> timedelta | None:
        """How long the token is valid in all; ``None`` if it has no expiry, or if the stored times are impossible."""
        life = None if self.expires_at is None else self.expires_at - self.renewed_at
        return life if life is not None and life > timedelta(0) else None

    def renew_at(self, renew_before: int) -> datetime | None:
        """Return when the token becomes due for renewal; ``None`` if it has no expiry.

        :param renew_before: seconds before the expiry, of which at most a quarter of the lifetime is used.
        """
        if self.expires_at is None:
            return None
        before = timedelta(seconds=renew_before)
        return self.expires_at - (min(before, self._lifetime / 4) if self._lifetime else before)
