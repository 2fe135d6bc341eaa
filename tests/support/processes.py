"""Processes of the site under test."""

import os
from typing import Any

import pytest
from django.db import connection

from airisk_oauth.sandbox.world import World


@pytest.fixture
def environment(airisk: World, settings: Any) -> dict[str, str]:
    """Environment variables for another process of the site under test, with its settings, database and AIRisk."""
    database = str(connection.settings_dict["NAME"])
    postgresql = os.environ.get("DATABASE_URL", "").replace("/postgres?", f"/{database}?")
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "DATABASE_URL": f"sqlite:///{database}" if connection.vendor == "sqlite" else postgresql,
        "AIRISK_BASE_URL": settings.AIRISK_OAUTH["default"]["BASE_URL"],
    }
