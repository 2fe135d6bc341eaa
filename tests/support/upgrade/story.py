"""What happens at the site before the upgrade, and what version 1.0.0 does there after it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client
from django.test.utils import override_settings
from django.utils import timezone

from airisk_oauth.models import AIRiskIdentity, AIRiskToken

from . import rows
from .site import (
    DAY,
    IDENTITIES,
    OLD,
    SETTINGS,
    TOKENS,
    act,
    airisk,
    browser_of,
    call,
    connect,
    import_identity,
    new_person,
    run,
    start,
)


def fill() -> None:
    """Fill an empty database, and print what is in it while one token is being renewed."""
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
        "rows": rows.all_rows(),
    }
    rows.write(
        "Every row that version 1.0.0 stored in story.py, and what browsers had. Made as __main__.py says.", site
    )


def _access_tokens() -> dict[int, str]:
    return {token.pk: str(token.access_token) for token in AIRiskToken.objects.exclude(sealed="").order_by("pk")}


def use() -> None:
    """Do everything that changes tokens, in a database that was upgraded, and print the statements.

    On MySQL and MariaDB, version 1.0.0 could not show the admin's list of tokens, and so not do what begins there.
    """
    staff = browser_of("staff")
    has_list = connection.vendor != "mysql"
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
        if has_list:
            act(staff, "delete_selected", None)
        else:
            AIRiskToken.objects.filter(user=None, deployment="default").delete()
    with recorded("obtain the application's token"):
        assert call(None) == 403
    with recorded("disconnect"):
        browser_of("valid_old_key").post("/airisk/disconnect/")
    with recorded("show the admin's pages"):
        [token] = AIRiskToken.objects.filter(user__username="needs_person")
        lists = (TOKENS, f"{TOKENS}?state=live", f"{TOKENS}{token.pk}/change/") if has_list else ()
        for page in (*lists, IDENTITIES):
            assert staff.get(page).status_code == 200
    if has_list:
        with recorded("renew in the admin"):
            act(staff, "renew_now", "renewed_by_staff")
    with recorded("enter an identity"):
        import_identity("never_connected", "second")
    with recorded("reseal_airisk_tokens"):
        run("reseal_airisk_tokens", drop_derived=True)
    with recorded("refresh_airisk_tokens"):
        run("refresh_airisk_tokens")
    rows.write(
        "What version 1.0.0 sent in story.py to the database after the upgrade. Made as __main__.py says.",
        {
            "moved_by": rows.moved_by().total_seconds(),
            "access_tokens": _access_tokens(),
            "statements": {what: [list(statement) for statement in sent] for what, sent in statements.items()},
        },
    )
