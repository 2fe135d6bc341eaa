"""Connecting, disconnecting and deleting at the same moment, with the database as other sites have set it up."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, connection, connections
from django.test import Client
from psycopg import IsolationLevel

from airisk_oauth import conf
from airisk_oauth.connecting import flow
from airisk_oauth.connecting.problems import ConnectionFailed
from airisk_oauth.connecting.reasons import Reason
from airisk_oauth.models import AIRiskIdentity, AIRiskToken
from airisk_oauth.oauth.messages import Secret, TokenGrant
from airisk_oauth.sandbox.world import World
from airisk_oauth.tokens.outcomes import store
from tests.support.browsing import at_each_request, authorize, connect, start
from tests.support.threads import at_once

pytestmark = pytest.mark.django_db(transaction=True)

ROUNDS = 2
STRICT: dict[str, dict[str, Any]] = {
    "postgresql": {"isolation_level": IsolationLevel.REPEATABLE_READ},
    "mysql": {
        "isolation_level": "repeatable read",
        # From MariaDB 11.8 on by default. It is a comment for MySQL, which has no such thing.
        "init_command": "SET foreign_key_checks = 1 /*M! , innodb_snapshot_isolation = ON */",
    },
}


@pytest.fixture
def options(transactional_db: None) -> Iterator[None]:
    """SQLite with Django's own options; the others with the strictest isolation level that sites commonly choose."""
    given = connection.settings_dict["OPTIONS"]
    if connection.vendor == "sqlite":
        # The mode stays with the file.
        connection.cursor().execute("PRAGMA journal_mode=DELETE")
        connection.settings_dict["OPTIONS"] = {}
    else:
        connection.settings_dict["OPTIONS"] = {**given, **STRICT[connection.vendor]}
    connection.close()
    yield
    connections.close_all()
    connection.settings_dict["OPTIONS"] = given


def browser_of(user: User) -> Client:
    client = Client(raise_request_exception=False)
    client.force_login(user)
    return client


def person(name: str) -> User:
    user = User.objects.create_user(name)
    AIRiskIdentity.objects.create(user=user, userid=name)
    return user


def come_back(browser: Client, path: str) -> int:
    return browser.get(path).status_code


def test_people_who_connect_at_once_all_succeed(options: None, airisk: World) -> None:
    for number in range(ROUNDS):
        browsers = [browser_of(person(f"user-{number}-{each}")) for each in range(8)]
        statuses = at_once(*(partial(lambda browser: connect(browser).status_code, each) for each in browsers))
        assert statuses == [302] * 8
    assert AIRiskToken.objects.count() == 8 * ROUNDS


def test_one_users_tabs_can_connect_at_once(options: None, airisk: World) -> None:
    for number in range(ROUNDS):
        user = person(f"user-{number}")
        ways = [(browser, authorize(start(browser))) for browser in (browser_of(user) for _tab in range(4))]
        assert at_once(*(partial(come_back, *way) for way in ways)) == [302] * 4
        assert AIRiskToken.objects.filter(user=user).count() == 1


def test_connect_and_disconnect_at_once_work(options: None, airisk: World) -> None:
    for number in range(ROUNDS):
        user = person(f"user-{number}")
        browsers = [browser_of(user) for _tab in range(4)]
        ways = [(browser, authorize(start(browser))) for browser in browsers[:2]]
        leave: list[Callable[[], int]] = [
            partial(lambda browser: browser.post("/airisk/disconnect/").status_code, browser)
            for browser in browsers[2:]
        ]
        assert at_once(*(partial(come_back, *way) for way in ways), *leave) == [302] * 4


def test_eight_callbacks_at_once_spend_one_code(options: None, airisk: World) -> None:
    browser = browser_of(person("mia"))
    back = authorize(start(browser))
    assert at_once(*[partial(come_back, browser, back)] * 8) == [302] * 8
    assert len([seen for seen in airisk.journal if seen.endpoint == "/api/oauth2/Token"]) == 1


def test_user_deleted_during_the_call_is_no_crash(airisk: World) -> None:
    user = person("mia")
    browser = browser_of(user)
    back = authorize(start(browser))
    with at_each_request("/api/oauth2/Token", lambda: at_once(User.objects.all().delete)):
        assert browser.get(back).status_code < 500
    assert not AIRiskToken.objects.exists()


def anybody(_user: Any, _deployment: str) -> str:
    """A site's own ``USERID`` function, which looks at no table of ours."""
    return "user_42"


def test_deleted_user_starts_and_stores_nothing(settings: Any, transactional_db: None) -> None:
    default = {**settings.AIRISK_OAUTH["default"], "USERID": f"{__name__}.anybody"}
    settings.AIRISK_OAUTH = {**settings.AIRISK_OAUTH, "default": default}
    user = person("mia")
    User.objects.all().delete()
    with pytest.raises(ConnectionFailed) as caught:
        flow.begin(conf.deployment(), user, browser="b")
    assert caught.value.reason is Reason.NO_IDENTITY
    with pytest.raises(IntegrityError):
        store(user.pk, "default", "user_42", TokenGrant(Secret("token"), None))
    assert not AIRiskToken.objects.exists()


def test_deleted_user_known_elsewhere_is_no_crash(settings: Any, airisk: World) -> None:
    default = {**settings.AIRISK_OAUTH["default"], "USERID": f"{__name__}.anybody"}
    settings.AIRISK_OAUTH = {**settings.AIRISK_OAUTH, "default": default}
    browser = browser_of(person("mia"))
    back = authorize(start(browser))
    with at_each_request("/api/oauth2/Token", lambda: at_once(User.objects.all().delete)):
        assert browser.get(back).status_code < 500
    assert not AIRiskToken.objects.exists()
