"""Recording the signals that are sent."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.dispatch import Signal

from airisk_oauth.signals import renewal_failed, token_obtained, token_renewed

Heard = list[tuple[Signal, dict[str, Any]]]


@contextmanager
def signals_sent(*signals: Signal) -> Iterator[Heard]:
    """Record the signals that are sent, with their arguments."""
    heard: Heard = []

    def listen(signal: Signal, **carried: Any) -> None:
        heard.append((signal, carried))

    for signal in signals:
        signal.connect(listen)
    yield heard
    for signal in signals:
        signal.disconnect(listen)


@contextmanager
def renewals_sent() -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Record the signals about renewals, by name, with their arguments."""
    told: list[tuple[str, dict[str, Any]]] = []
    receivers = []
    for name, signal in (
        ("obtained", token_obtained),
        ("renewed", token_renewed),
        ("failed", renewal_failed),
    ):

        def note(name: str = name, **carried: Any) -> None:
            carried.pop("signal")
            told.append((name, carried))

        signal.connect(note)
        receivers.append((signal, note))
    yield told
    for signal, note in receivers:
        assert signal.disconnect(note)
