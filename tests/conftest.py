"""What most tests need: AIRisk on a real port, and users."""

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
from tests.support.api_clients import api_client, other_server, session
from tests.support.chats import chat, chat_at, side_kind
from tests.support.chromium import chromium, page, site
from tests.support.demo import demo, demo_site, demo_visit, visitor
from tests.support.oauth_clients import make_client
from tests.support.options import save_soon
from tests.support.processes import environment
from tests.support.sandbox import two_clients
from tests.support.scripted import scripted
from tests.support.second_airisk import other_airisk
from tests.support.statuses import second_by_hand
from tests.support.wire import certificate, nothing_in_the_environment, serve

__all__ = [
    "api_client",
    "certificate",
    "chat",
    "chat_at",
    "chromium",
    "demo",
    "demo_site",
    "demo_visit",
    "desk",
    "environment",
    "make_client",
    "nothing_in_the_environment",
    "other_airisk",
    "other_server",
    "page",
    "save_soon",
    "scripted",
    "second_by_hand",
    "serve",
    "session",
    "side_kind",
    "site",
    "staff",
    "two_clients",
    "visitor",
]


def pytest_configure(config: pytest.Config) -> None:
    """Make mutmut run whole tests: pytest does not find parameters with a backslash by the names that mutmut gives."""
    if "MUTANT_UNDER_TEST" in os.environ:
        config.args = sorted({arg.partition("[")[0] for arg in config.args})


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On other databases than SQLite, leave out tests without a database and those marked ``once``."""
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
    """Sends the last bytes of a response at once, like a real server."""

    disable_nagle_algorithm = True


@pytest.fixture(scope="session")
def airisk_url() -> Iterator[str]:
    """The address of the sandbox, which is served from another origin than the site and without its database."""
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
    """The state of the sandbox, which answers for both deployments."""
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
    """A user who is ``user_42`` on the default deployment and has not connected."""
    user = User.objects.create_user("mia", email="mia@example.com")
    AIRiskIdentity.objects.create(user=user, userid="user_42")
    return user


@pytest.fixture
def browser(mia: User, client: Client) -> Client:
    """A browser in which Mia is signed in."""
    client.force_login(mia)
    return client
