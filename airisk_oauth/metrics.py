"""Metrics on OpenTelemetry's API (extra ``opentelemetry``), for whichever SDK and exporter a site has set up.

A process that does not call :func:`instrument` does not import OpenTelemetry. No label names a user.
"""

import threading
import time
from collections.abc import Iterable
from typing import Any, Final

from django.db import connections

try:
    from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation, get_meter
except ImportError:
    raise ImportError("Metrics need OpenTelemetry: pip install 'django-airisk-oauth[opentelemetry]'") from None

from . import conf
from .database.transactions import reconnecting
from .events import occurred
from .models import AIRiskToken
from .tokens.status import Status, count_by_deployment

#: Seconds, from a fast AIRisk to one that is given up.
BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
#: For how many seconds tokens are not counted again, however often the gauge is read.
COUNT_EVERY: Final = 60.0

DEPLOYMENT: Final = "airisk.deployment"
OUTCOME: Final = "airisk.outcome"
STATUS: Final = "airisk.status"
ERROR: Final = "error.type"
HTTP_STATUS: Final = "http.response.status_code"


def instrument(
    meter_provider: MeterProvider | None = None, *, tokens: bool = False, tokens_every: float = COUNT_EVERY
) -> None:
    """Measure what happens in this process from now on; call this once, in ``AppConfig.ready()``.

    :param meter_provider: by default the global one, which may also be set later.
    :param tokens: whether this process also reports how many tokens have each status. That reads all rows, so switch
        it on in one process only: each would report the same numbers.
    :param tokens_every: seconds until the tokens are counted again, however often the gauge is read.
    """
    uninstrument()
    meter = get_meter("airisk_oauth", meter_provider=meter_provider)
    occurred.connect(_Instruments(meter).note, weak=False, dispatch_uid=__name__)
    if tokens:
        meter.create_observable_gauge(
            "airisk.tokens",
            callbacks=[_TokenCount(tokens_every)],
            unit="{token}",
            description="Stored tokens, by deployment and status.",
        )


def uninstrument() -> None:
    """Stop measuring what happens. The number of tokens is reported until its meter provider is shut down."""
    occurred.disconnect(dispatch_uid=__name__)


class _Instruments:
    """Makes metrics of log events, so that both always agree."""

    def __init__(self, meter: Meter) -> None:
        self._renewals = meter.create_counter(
            "airisk.renewals", unit="{renewal}", description="Renewals of tokens, by outcome."
        )
        self._duration = meter.create_histogram(
            "airisk.renewal.duration",
            unit="s",
            description="How long AIRisk took to answer a renewal.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )
        self._replays = meter.create_counter(
            "airisk.call.replays", unit="{call}", description="Calls that were sent again after a 401."
        )
        self._lost = meter.create_counter(
            "airisk.connections.lost", unit="{connection}", description="Connections that only a person can restore."
        )

    def note(self, event: str, fields: dict[str, Any], **_sent: Any) -> None:
        """Count an event; a receiver of :data:`~airisk_oauth.events.occurred`."""
        labels = {DEPLOYMENT: fields.get("deployment", "")}
        if "error" in fields:
            labels[ERROR] = fields["error"]
        if event == "renewal.finished":
            labels[OUTCOME] = fields["outcome"]
            self._renewals.add(1, labels)
            self._duration.record(fields["duration"], labels)
        elif event == "call.replayed":
            self._replays.add(1, {**labels, HTTP_STATUS: fields["airisk_status"]})
        elif event == "connection.lost":
            self._lost.add(1, labels)


class _TokenCount:
    """Counts tokens when a gauge is read, at most once in so many seconds.

    :param every: seconds.
    """

    def __init__(self, every: float) -> None:
        self._every = every
        self._counting = threading.Lock()
        self._counted_at: float | None = None
        self._counts: list[Observation] = []

    def __call__(self, _options: CallbackOptions) -> Iterable[Observation]:
        with self._counting:
            if self._counted_at is None or time.monotonic() - self._counted_at >= self._every:
                self._counts = _read()
                self._counted_at = time.monotonic()
            return self._counts


def _read() -> list[Observation]:
    using = AIRiskToken.objects.all().db
    try:
        return reconnecting(using, _count)
    finally:
        # Usually in an exporter's own thread, whose connection Django does not look after.
        if not connections[using].in_atomic_block:
            connections[using].close_if_unusable_or_obsolete()


def _count() -> list[Observation]:
    """Return the number of tokens in each status; where there is none, it is 0, so that its series ends."""
    counts = count_by_deployment(AIRiskToken.objects.all())
    return [
        Observation(counts[alias, status], {DEPLOYMENT: alias, STATUS: status.name.lower()})
        for alias in conf.known_aliases()
        for status in Status
    ]
