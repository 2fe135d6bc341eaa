"""The signals that were sent."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.dispatch import Signal

from airisk_oauth.signals import renewal_failed, token_obtained, token_renewed

#: Signals and their arguments, in the order in which they were sent.
Heard = list[tuple[Signal, dict[str, Any]]]


@contextmanager
def _receiving(signals: tuple[Signal, ...], note: Callable[[Signal, dict[str, Any]], object]) -> Iterator[None]:
    def receiver(signal: Signal, **arguments: Any) -> None:
        note(signal, arguments)

    for signal in signals:
        signal.connect(receiver)
    try:
        yield
    finally:
        for signal in signals:
            signal.disconnect(receiver)


@contextmanager
def signals_sent(*signals: Signal) -> Iterator[Heard]:
    """Collect these signals, with their arguments."""
    sent: Heard = []
    with _receiving(signals, lambda signal, arguments: sent.append((signal, arguments))):
        yield sent


@contextmanager
def renewals_sent() -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Collect the signals about renewals: ``"obtained"``, ``"renewed"`` or ``"failed"``, with their arguments."""
    names = {token_obtained: "obtained", token_renewed: "renewed", renewal_failed: "failed"}
    sent: list[tuple[str, dict[str, Any]]] = []
    with _receiving(tuple(names), lambda signal, arguments: sent.append((names[signal], arguments))):
        yield sent
