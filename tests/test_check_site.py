"""``check_airisk`` on what is wrong with the site itself: its callback, its hosts and its database."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError, connection
from django.urls import include, path

from airisk_oauth.models import AIRiskIdentity
from tests.support.doctor import SERVER, SITE, check, fault, set_default
from tests.support.second_airisk import (
    CALLBACK,
    SecondAIRisk,
)

pytestmark = [pytest.mark.django_db, pytest.mark.once]

NOT_THIS_SITES = "https://app.example.com/airisk/calback/"

# For the test of a site without the package's pages.
urlpatterns = [path("sandbox/", include("airisk_oauth.sandbox.urls"))]


@pytest.mark.parametrize(
    ("redirect_uri", "said"),
    [
        (NOT_THIS_SITES, "callback, which is at /airisk/callback/."),
        (CALLBACK.rstrip("/"), "callback, which is at /airisk/callback/."),
        (f"{CALLBACK}second/", "callback, which is at /airisk/callback/."),
        ("https://app.example.com/", "callback, which is at /airisk/callback/."),
    ],
)
def test_registered_wrong_callback_is_a_fault(
    other_airisk: SecondAIRisk, settings: Any, redirect_uri: str, said: str
) -> None:
    other_airisk.redirect_uris = (redirect_uri,)
    set_default(settings, REDIRECT_URI=redirect_uri)
    found, remedy = fault()
    assert found == f"callback: REDIRECT_URI {redirect_uri} is not this deployment's {said}"
    assert remedy.startswith(f"{SITE} Set REDIRECT_URI to {CALLBACK}, and have the same address registered")


@pytest.mark.parametrize(
    ("redirect_uri", "hosts", "said"),
    [
        (CALLBACK, ["*"], "REDIRECT_URI is this site's callback\n"),
        (CALLBACK, [], "REDIRECT_URI is this site's callback\n"),
        (CALLBACK, [".example.com"], "REDIRECT_URI is this site's callback\n"),
        (CALLBACK, ["app.example.com", "localhost"], "REDIRECT_URI is this site's callback\n"),
        (f"{CALLBACK}default/", ["*"], "REDIRECT_URI is this site's callback\n"),
        ("http://[::1]:8000/airisk/callback/", ["[::1]"], "REDIRECT_URI is this site's callback\n"),
        ("https://example.com/app/airisk/callback/", ["*"], "callback, if a proxy strips /app\n"),
        (
            CALLBACK,
            ["app.example.com", "www.example.com"],
            "at www.example.com cannot connect, because AIRisk sends them to app.example.com\n",
        ),
    ],
)
def test_callback_of_this_site_is_recognized(
    other_airisk: SecondAIRisk, settings: Any, redirect_uri: str, hosts: list[str], said: str
) -> None:
    other_airisk.redirect_uris = (redirect_uri,)
    set_default(settings, REDIRECT_URI=redirect_uri)
    settings.ALLOWED_HOSTS = hosts
    status, words = check()
    assert (status, said in words) == (0, True)


def test_shared_session_cookie_joins_the_hosts(other_airisk: SecondAIRisk, settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["app.example.com", "www.example.com"]
    settings.SESSION_COOKIE_DOMAIN = ".example.com"
    assert "cannot connect" not in check()[1]


def test_host_that_django_refuses_is_a_fault(other_airisk: SecondAIRisk, settings: Any) -> None:
    settings.ALLOWED_HOSTS = ["www.example.com"]
    found, remedy = fault()
    assert found.startswith("callback: REDIRECT_URI leads to app.example.com, but this site does not answer there")
    assert remedy == f"{SITE} Correct REDIRECT_URI, or add app.example.com to ALLOWED_HOSTS."


@pytest.mark.urls(__name__)
def test_site_without_our_pages_is_healthy(other_airisk: SecondAIRisk) -> None:
    status, said = check()
    assert (status, "does not include airisk_oauth.urls, so nobody can connect in a browser" in said) == (0, True)


@pytest.mark.parametrize("options", [{}, {"user": "mia"}])
@pytest.mark.parametrize("table", ["airisk_oauth_airiskidentity", "airisk_oauth_pendingauthorization"])
def test_missing_table_stops_the_diagnosis(
    other_airisk: SecondAIRisk, mia: User, table: str, options: dict[str, str]
) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} RENAME TO elsewhere")
    found, remedy = fault(**options)
    assert found == f"database: The database 'default' has no table {table}."
    assert remedy == f"{SERVER} Run manage.py migrate."
    assert other_airisk.requests == []


def test_table_of_another_version_is_reported(other_airisk: SecondAIRisk) -> None:
    AIRiskIdentity.objects.all().delete()
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE airisk_oauth_airiskidentity RENAME COLUMN userid TO other")
    found, remedy = fault()
    assert found.startswith("database: The table airisk_oauth_airiskidentity does not match this version of the")
    assert remedy == f"{SERVER} Run manage.py migrate."


@contextmanager
def failing(words: str) -> Iterator[None]:
    """Make the database fail at each statement that contains these words."""

    def execute(execute: Any, sql: str, *args: Any) -> Any:
        if words in sql:
            raise OperationalError
        return execute(sql, *args)

    with connection.execute_wrapper(execute):
        yield


def test_unavailable_database_is_reported(other_airisk: SecondAIRisk, mia: User) -> None:
    listing = "sqlite_master" if connection.vendor == "sqlite" else "pg_catalog"
    with failing(listing):
        found, remedy = fault()
    assert found == "database: The database 'default' cannot be read (OperationalError)."
    assert remedy.startswith(f"{SERVER} Make sure that it is running")
    with failing("auth_user"):
        status, said = check(user="mia")
    assert (status, said.startswith("The users cannot be read (OperationalError).")) == (1, True)
