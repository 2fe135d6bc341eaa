"""Processes of the site under test."""

import os
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.db import connection

from airisk_oauth.sandbox.world import World


@pytest.fixture
def environment(airisk: World, settings: Any) -> dict[str, str]:
    """What makes a process one of the site under test: its settings, its database, its AIRisk."""
    database = str(connection.settings_dict["NAME"])
    server = urlsplit(os.environ.get("DATABASE_URL", ""))._replace(path=f"/{database}").geturl()
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "DATABASE_URL": f"sqlite:///{database}" if connection.vendor == "sqlite" else server,
        "AIRISK_BASE_URL": settings.AIRISK_OAUTH["default"]["BASE_URL"],
    }
