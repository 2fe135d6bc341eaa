"""Processes of the site under test."""

import os
import subprocess
import sys
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.db import connection

from airisk_oauth.sandbox.world import World
from tests.support.pages import ROOT


@pytest.fixture
def environment(airisk: World, settings: Any) -> dict[str, str]:
    """Environment variables for another process of the site under test, with its settings, database and AIRisk."""
    return environment_of(settings.AIRISK_OAUTH["default"]["BASE_URL"])


def environment_of(base_url: str) -> dict[str, str]:
    """Environment variables for another process of the site under test, with an AIRisk at this address."""
    database = str(connection.settings_dict["NAME"])
    server = urlsplit(os.environ.get("DATABASE_URL", ""))._replace(path=f"/{database}").geturl()
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "DATABASE_URL": f"sqlite:///{database}" if connection.vendor == "sqlite" else server,
        "AIRISK_BASE_URL": base_url,
    }


def assert_promises_kept(site: str, promises: list[str], environment: dict[str, str]) -> None:
    """Run a site that is set up by itself, see ``tests.sites``; it prints a line for each promise.

    :param site: module, and the arguments that it is started with.
    """
    done = subprocess.run(
        [sys.executable, "-m", *site.split()],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.stdout.splitlines() == [f"{promise}: kept" for promise in promises], done.stderr
    assert done.returncode == 0, done.stderr
