"""Lost and restored connections, as the signals tell them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from airisk_oauth.signals import connection_lost, connection_restored
from tests.support.signals import signals_sent


@contextmanager
def told() -> Iterator[list[tuple[str, Any]]]:
    """Return what is announced, as ("lost" or "restored", user id), while it happens."""
    announced: list[tuple[str, Any]] = []

    def note_loss(user_id: Any, **_carried: Any) -> None:
        announced.append(("lost", user_id))

    def note_recovery(user_id: Any, **_carried: Any) -> None:
        announced.append(("restored", user_id))

    connection_lost.connect(note_loss)
    connection_restored.connect(note_recovery)
    try:
        yield announced
    finally:
        connection_lost.disconnect(note_loss)
        connection_restored.disconnect(note_recovery)


@contextmanager
def losses_sent() -> Iterator[list[dict[str, Any]]]:
    """Return what each announced loss carries."""
    carried: list[dict[str, Any]] = []
    with signals_sent(connection_lost) as heard:
        yield carried
    carried += [values for _signal, values in heard]
