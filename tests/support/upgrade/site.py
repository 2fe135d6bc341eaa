"""A site that connects people to AIRisk and calls AIRisk, with whichever version of ``airisk_oauth`` is imported.

Users are named after what happened to their token.
"""

import io
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import requests
from django.contrib import admin
from django.contrib.auth.models import User
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import call_command
from django.core.servers.basehttp import ThreadedWSGIServer
from django.test import Client
from django.test.testcases import QuietWSGIRequestHandler
from django.test.utils import override_settings
from django.urls import include, path

from airisk_oauth import AIRiskSession
from airisk_oauth.exceptions import AIRiskError
from airisk_oauth.models import AIRiskToken
from airisk_oauth.sandbox.world import world

NEW: Final = "bmV3IGtleSwgZm9yIHRlc3RzIG9mIGFuIHVwZ3JhZGU="
OLD: Final = "b2xkIGtleSwgZm9yIHRlc3RzIG9mIGFuIHVwZ3JhZGU="
SETTINGS: Final = {
    "SECRET_KEY": "the SECRET_KEY of a site that exists in tests only",
    "AIRISK_OAUTH_ENCRYPTION_KEYS": [NEW, OLD],
}
#: The same in every process, because a token is for the address that it was issued by.
PORT: Final = 18765
DAY: Final = 86400
IDENTITIES, TOKENS = "/admin/airisk_oauth/airiskidentity/", "/admin/airisk_oauth/airisktoken/"

urlpatterns = [
    path("airisk/", include("airisk_oauth.urls")),
    path("sandbox/", include("airisk_oauth.sandbox.urls")),
    path("second-sandbox/", include("airisk_oauth.sandbox.urls", namespace="second_sandbox")),
    path("admin/", admin.site.urls),
]


@contextmanager
def running() -> Iterator[None]:
    """Set the site up, with the sandbox for AIRisk."""
    server = ThreadedWSGIServer(("127.0.0.1", PORT), QuietWSGIRequestHandler)
    server.set_app(WSGIHandler())
    threading.Thread(target=server.serve_forever, daemon=True).start()
    deployments = {
        alias: {
            "BASE_URL": f"http://127.0.0.1:{PORT}/{sandbox}",
            "CLIENT_ID": f"client-{alias}",
            "CLIENT_SECRET": "secret",
            "REDIRECT_URI": f"https://app.example.com/airisk/callback/{alias}/",
        }
        for alias, sandbox in (("default", "sandbox"), ("second", "second-sandbox"))
    }
    with override_settings(ROOT_URLCONF=__name__, AIRISK_OAUTH=deployments, **SETTINGS):
        yield


@contextmanager
def airisk(*, ahead: float = 0, known_clients: dict[str, Any] | None = None, **switches: Any) -> Iterator[None]:
    """Let AIRisk behave like this, with its clock so many seconds ahead."""
    world.reset()
    vars(world.switches).update(switches)
    world.clock = lambda: time.time() + ahead
    with override_settings(AIRISK_OAUTH_SANDBOX_CLIENTS=known_clients):
        yield
    world.reset()


def run(command: str, *args: str, **options: Any) -> None:
    call_command(command, *args, stdout=io.StringIO(), **options)


def browser_of(username: str) -> Client:
    browser = Client()
    browser.force_login(User.objects.get(username=username))
    return browser


def new_person(username: str, alias: str = "default") -> Client:
    """Add a user with an AIRisk identity, and return the browser in which they are signed in."""
    User.objects.create_user(username)
    import_identity(username, alias)
    return browser_of(username)


def import_identity(username: str, alias: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "people.csv"
        file.write_text(f"user,deployment,userid\n{username},{alias},userid-of-{username}\n", encoding="utf-8")
        run("import_airisk_identities", str(file))


def start(browser: Client, alias: str = "default") -> str:
    """Click Connect, visit AIRisk, and return where that sends the browser."""
    started = browser.post(f"/airisk/connect/{alias}/")
    answer = requests.get(started["Location"], allow_redirects=False, timeout=5)
    back = urlsplit(answer.headers["Location"])
    return f"{back.path}?{back.query}"


def connect(browser: Client, alias: str = "default", life: int | None = DAY) -> str:
    """Connect, for a token that is valid for ``life`` seconds, and return where AIRisk sent the browser."""
    with airisk(token_life=life):
        back = start(browser, alias)
        assert "You are connected" in browser.get(back, follow=True).content.decode()
    return back


def call(username: str | None, alias: str = "default") -> int | str:
    """Call AIRisk as this user, or as the application, and return the status or the kind of error."""
    if username is None:
        session = AIRiskSession.for_application(alias)
    else:
        session = AIRiskSession.for_user(User.objects.get(username=username), alias)
    with session:
        try:
            return session.get("/api/GetConversations").status_code
        except AIRiskError as error:
            return type(error).__name__


def act(browser: Client, action: str, username: str | None, alias: str = "default") -> None:
    """Choose a token in the admin's list, then an action, and confirm it."""
    [token] = AIRiskToken.objects.filter(user__username=username, deployment=alias)
    given = {"action": action, "_selected_action": token.pk, "index": 0, "post": "yes"}
    assert browser.post(TOKENS, given).status_code == 302
