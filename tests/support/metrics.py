"""What a Prometheus server would read of this process, by the real SDK and its exporter."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from airisk_oauth import metrics

#: Labels that the exporter adds.
_OF_THE_EXPORTER = "otel_scope_"
Sample = tuple[str, frozenset[tuple[str, str]]]


class Scrapes:
    """Reads the metrics of a process that :func:`instrumented` measures."""

    def text(self) -> str:
        return generate_latest(REGISTRY).decode()

    def samples(self) -> dict[Sample, float]:
        """Return our samples: their values by name and labels."""
        found = {}
        for family in text_string_to_metric_families(self.text()):
            for sample in family.samples:
                if sample.name.startswith("airisk_"):
                    labels = frozenset(each for each in sample.labels.items() if _is_ours(*each))
                    found[sample.name, labels] = sample.value
        return found

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of the samples with this name and these labels; 0 if there is none."""
        wanted = {(f"airisk_{key}" if key in OWN else key, value) for key, value in labels.items()}
        return sum(value for (found, has), value in self.samples().items() if found == name and wanted <= has)


OWN = ("deployment", "outcome", "status")


def _is_ours(key: str, value: str) -> bool:
    # To Prometheus, a label without a value is no label.
    return bool(value) and not key.startswith(_OF_THE_EXPORTER)


@contextmanager
def instrumented(**options: Any) -> Iterator[Scrapes]:
    """Measure, and export to Prometheus's own registry."""
    reader = PrometheusMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    metrics.instrument(provider, **options)
    try:
        yield Scrapes()
    finally:
        metrics.uninstrument()
        provider.shutdown()
