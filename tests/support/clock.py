"""Django's clock, and waiting for a condition."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone


def wait_until(condition: Callable[[], object]) -> None:
    """Wait up to a minute for a condition, such as one that another thread or process fulfils."""
    give_up = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def set_clock(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Set Django's clock this many seconds ahead of the real time; AIRisk's clock is not changed."""
    monkeypatch.setattr(timezone, "now", lambda: datetime.now(UTC) + timedelta(seconds=seconds))


def stop_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop Django's clock for the rest of the test, because some statuses last only a few seconds."""
    now = timezone.now()
    monkeypatch.setattr(timezone, "now", lambda: now)
