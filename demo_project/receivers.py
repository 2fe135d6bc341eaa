"""Receives the package's signals, as a site's audit trail would."""

from typing import Any, Final

from django.dispatch import Signal, receiver

from airisk_oauth import signals
from airisk_oauth.exceptions import AIRiskError
from airisk_oauth.models import AIRiskToken

from .models import Event

_KINDS: Final[dict[Signal, Event.Kind]] = {
    signals.token_obtained: Event.Kind.CONNECTED,
    signals.token_renewed: Event.Kind.RENEWED,
    signals.renewal_failed: Event.Kind.FAILED,
    signals.token_disconnected: Event.Kind.DISCONNECTED,
}


@receiver(list(_KINDS))
def record(*, signal: Signal, user_id: Any, error: AIRiskError | None = None, **kwargs: Any) -> None:
    """Record what happened to a user's token. The application's token is left out: it belongs to no user's page."""
    if user_id is None:
        return
    failure = "" if error is None else AIRiskToken.Failure.of(error)
    Event.objects.record(user_id, _KINDS[signal], failure)
