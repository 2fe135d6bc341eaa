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
from django.contrib.sessions.models import Session
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import call_command
from django.core.servers.basehttp import ThreadedWSGIServer
from django.test import Client
from django.test.testcases import QuietWSGIRequestHandler
from django.test.utils import override_settings
from django.urls import include, path
from django.utils import timezone

from airisk_oauth import AIRiskSession
from airisk_oauth.exceptions import AIRiskError
from airisk_oauth.models import AIRiskIdentity, AIRiskToken
from airisk_oauth.sandbox.world import world

from . import rows

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


def fill() -> None:
    """Fill an empty database, with one renewal still under way, and print what is in it."""
    run("migrate")
    browsers: dict[str, tuple[Client, str]] = {}
    with override_settings(AIRISK_OAUTH_ENCRYPTION_KEYS=None):
        _fill_with_derived_keys()
    with override_settings(AIRISK_OAUTH_ENCRYPTION_KEYS=[OLD]):
        connect(new_person("valid_old_key"))
        assert call(None) == 403
    connect(new_person("valid_new_key"))
    connect(new_person("refused_though_renewed"))
    with airisk(ahead=DAY * 2, token_life=3600 - DAY * 2):
        assert call("refused_though_renewed") == 401
    connecting = new_person("connecting")
    connect(connecting)
    browsers["connecting"] = connecting, start(connecting)
    connected = new_person("just_connected")
    browsers["just_connected"] = connected, connect(connected)
    refused = new_person("connecting_failed")
    with airisk(refuse=True):
        browsers["connecting_failed"] = refused, start(refused)
        refused.get(browsers["connecting_failed"][1])
    new_person("never_connected")
    User.objects.create_superuser("staff")
    browsers["staff"] = browser_of("staff"), ""
    _manage(browsers["staff"][0])
    connect(new_person("being_renewed"), life=1)
    with airisk(latency=1):
        thread = threading.Thread(target=call, args=["being_renewed"])
        thread.start()
        while not AIRiskToken.objects.exclude(lease=None):
            time.sleep(0.1)
        _print_stored(browsers)
        thread.join()


def _fill_with_derived_keys() -> None:
    connect(new_person("valid_derived_key"))
    connect(new_person("valid_second_deployment", "second"), "second")
    connect(new_person("without_expiry"), life=None)
    connect(new_person("expired"), life=1)
    for username, trouble in (
        ("refused", {"known_clients": {}}),
        ("needs_person", {"login_page": True}),
        ("unavailable", {"outage": True, "retry_after": 600}),
        ("invalid_answer", {"malformed": True}),
    ):
        connect(new_person(username), life=1)
        with airisk(**trouble):
            assert isinstance(call(username), str)
    with airisk(outage=True):
        assert call(None, "second") == "AIRiskUnavailable"


def _manage(browser: Client) -> None:
    """Enter and correct an identity, renew a token, and disconnect another one."""
    given = {"user": User.objects.create_user("entered_by_staff").pk, "deployment": "default", "userid": "mistyped"}
    assert browser.post(f"{IDENTITIES}add/", given).status_code == 302
    [identity] = AIRiskIdentity.objects.filter(userid="mistyped")
    given["userid"] = "userid-of-entered_by_staff"
    assert browser.post(f"{IDENTITIES}{identity.pk}/change/", given).status_code == 302
    for username, action in (("renewed_by_staff", "renew_now"), ("disconnected_by_staff", "delete_selected")):
        connect(new_person(username))
        with airisk(token_life=DAY):
            act(browser, action, username)


def _print_stored(browsers: dict[str, tuple[Client, str]]) -> None:
    sessions = [browser.cookies["sessionid"].value for browser, _back in browsers.values()]
    Session.objects.exclude(pk__in=sessions).delete()
    site = {
        "stored_at": timezone.now(),
        "settings": SETTINGS,
        "access_tokens": _access_tokens(),
        "browsers": {
            name: {"session": browser.cookies["sessionid"].value, "callback": back}
            for name, (browser, back) in browsers.items()
        },
        "rows": rows.rows(),
    }
    rows.write("Every row that version 1.0.0 stored for the site in site.py; see __main__.py.", site)


def _access_tokens() -> dict[int, str]:
    return {token.pk: str(token.access_token) for token in AIRiskToken.objects.exclude(sealed="").order_by("pk")}


def use() -> None:
    """Do all that changes tokens to a database that was filled and then upgraded, and print the statements for it."""
    staff = browser_of("staff")
    statements: dict[str, list[rows.Statement]] = {}

    @contextmanager
    def recorded(what: str) -> Iterator[None]:
        with rows.recorded(what, statements), airisk(token_life=DAY):
            yield

    with recorded("connect"):
        connect(browser_of("never_connected"))
    with recorded("connect again"):
        connect(browser_of("refused"))
    with recorded("call with a valid token"):
        assert call("valid_derived_key") == 200
    with recorded("call with an expired token"):
        assert call("expired") == 200
    with recorded("fail to renew"), airisk(malformed=True):
        assert call("invalid_answer") == "AIRiskInvalidResponse"
    with recorded("renew a token in vain"), airisk(ahead=DAY * 2, token_life=3600 - DAY * 2):
        assert call("refused_though_renewed") == 401
    with recorded("forget the application's token"):
        act(staff, "delete_selected", None)
    with recorded("obtain the application's token"):
        assert call(None) == 403
    with recorded("disconnect"):
        browser_of("valid_old_key").post("/airisk/disconnect/")
    with recorded("show the admin's pages"):
        [token] = AIRiskToken.objects.filter(user__username="needs_person")
        for page in (TOKENS, f"{TOKENS}?state=live", f"{TOKENS}{token.pk}/change/", IDENTITIES):
            assert staff.get(page).status_code == 200
    with recorded("renew in the admin"):
        act(staff, "renew_now", "renewed_by_staff")
    with recorded("enter an identity"):
        import_identity("never_connected", "second")
    with recorded("reseal_airisk_tokens"):
        run("reseal_airisk_tokens", drop_derived=True)
    with recorded("refresh_airisk_tokens"):
        run("refresh_airisk_tokens")
    rows.write(
        "What version 1.0.0 sent to the database after the upgrade; see __main__.py.",
        {
            "moved_by": rows.moved_by().total_seconds(),
            "access_tokens": _access_tokens(),
            "statements": {what: [list(statement) for statement in sent] for what, sent in statements.items()},
        },
    )
