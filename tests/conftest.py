"""The few things most tests need: AIRisk on a real port, and people."""

import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.handlers.wsgi import WSGIHandler
from django.core.servers.basehttp import ThreadedWSGIServer
from django.db import connection
from django.test import Client
from django.test.testcases import QuietWSGIRequestHandler

from airisk_oauth.models import AIRiskIdentity
from airisk_oauth.sandbox.world import World, world
from tests.support.admin import desk, staff
from tests.support.chromium import chromium
from tests.support.options import save_soon
from tests.support.processes import environment
from tests.support.statuses import second_by_hand
from tests.support.wire import certificate, nothing_in_the_environment, serve

__all__ = [
    "certificate",
    "chromium",
    "desk",
    "environment",
    "nothing_in_the_environment",
    "save_soon",
    "second_by_hand",
    "serve",
    "staff",
]


def pytest_configure(config: pytest.Config) -> None:
    """Let mutmut run whole tests: it names every variation, and pytest finds none that has a backslash in its name."""
    if "MUTANT_UNDER_TEST" in os.environ:
        config.args = sorted({arg.partition("[")[0] for arg in config.args})


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave to SQLite's run what never meets the database that ``DATABASE_URL`` names, or does not mind which it is."""
    if connection.vendor == "sqlite":
        return
    kept: list[pytest.Item] = []
    left: list[pytest.Item] = []
    for item in items:
        meets = item.get_closest_marker("django_db") or "db" in getattr(item, "fixturenames", ())
        (kept if meets and not item.get_closest_marker("once") else left).append(item)
    config.hook.pytest_deselected(items=left)
    items[:] = kept


class PromptHandler(QuietWSGIRequestHandler):
    """Sends an answer's last bytes at once; a real server in front of AIRisk does too."""

    disable_nagle_algorithm = True


@pytest.fixture(scope="session")
def airisk_url() -> Iterator[str]:
    """The sandbox on a port of its own: another origin than the site under test, and no database in its way."""
    server = ThreadedWSGIServer(("127.0.0.1", 0), PromptHandler)
    server.set_app(WSGIHandler())
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def airisk(airisk_url: str, settings: Any) -> Iterator[World]:
    """Both deployments answered by the sandbox; what it saw and its switches are this object's."""
    default, second = settings.AIRISK_OAUTH["default"], settings.AIRISK_OAUTH["second"]
    settings.AIRISK_OAUTH = {
        "default": {**default, "BASE_URL": f"{airisk_url}/sandbox"},
        "second": {**second, "BASE_URL": f"{airisk_url}/second-sandbox"},
    }
    world.reset()
    yield world
    world.reset()


@pytest.fixture
def mia(db: None) -> User:
    """A user who is ``user_42`` on the default deployment, and has not connected."""
    user = User.objects.create_user("mia", email="mia@example.com")
    AIRiskIdentity.objects.create(user=user, userid="user_42")
    return user


@pytest.fixture
def browser(mia: User, client: Client) -> Client:
    """The browser in which Mia is signed in."""
    client.force_login(mia)
    return client
