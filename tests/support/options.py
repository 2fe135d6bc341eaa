"""Settings of the site under test."""

from typing import Any

import pytest
from cryptography.fernet import Fernet

from airisk_oauth.sandbox.world import World
from airisk_oauth.tokens import sweep


def trouble(airisk: World, settings: Any, what: str) -> None:
    """Make AIRisk fail: by one of its switches, or by forgetting its clients."""
    if what == "unknown client":
        settings.AIRISK_OAUTH_SANDBOX_CLIENTS = {}
    else:
        assert getattr(airisk.switches, what) is False
        setattr(airisk.switches, what, True)


@pytest.fixture
def save_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the sweep save results almost at once."""
    monkeypatch.setattr(sweep, "GATHER", 0.01)


def set_option(settings: Any, alias: str = "default", **options: Any) -> None:
    settings.AIRISK_OAUTH = {**settings.AIRISK_OAUTH, alias: {**settings.AIRISK_OAUTH[alias], **options}}


def replace_keys(settings: Any) -> None:
    """Give the site one new encryption key, so that it can decrypt nothing that it has stored."""
    settings.AIRISK_OAUTH_ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
