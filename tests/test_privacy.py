"""What docs/privacy.md says about personal data, held against the models and the log."""

import json
import re
from datetime import timedelta
from typing import Any, get_args

import pytest
from django.apps import apps
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import User
from django.db.models import CASCADE, ForeignKey
from django.test import Client
from django.utils import timezone

from airisk_oauth import events
from airisk_oauth.connecting import browsers
from airisk_oauth.models import AIRiskIdentity, AIRiskToken, PendingAuthorization
from airisk_oauth.sandbox.world import World
from tests.support import pages
from tests.support.admin import act
from tests.support.browsing import start
from tests.support.people import give_token

PAGE = "docs/privacy.md"
COLUMNS = [
    (model, set(re.findall(r"`(\w+)`", columns)))
    for model, columns in re.findall(r"^\| `(\w+)` \| (`[^|]+`) \|", pages.text_of(PAGE), re.MULTILINE)
]
OURS = list(apps.get_app_config("airisk_oauth").get_models())


def links_to_user(model: Any) -> list[Any]:
    return [field for field in model._meta.get_fields() if isinstance(field, ForeignKey)]


def test_page_lists_every_column_about_a_user() -> None:
    listed: dict[str, list[str]] = {}
    for model, columns in COLUMNS:
        listed.setdefault(model, []).extend(columns)
    assert {name: sorted(columns) for name, columns in listed.items()} == {
        model.__name__: sorted(field.name for field in model._meta.concrete_fields if not field.primary_key)
        for model in OURS
        if links_to_user(model)
    }


def test_page_names_every_table_without_a_user() -> None:
    [others] = re.findall(r"The table (.+?) has nothing about people", pages.text_of(PAGE))
    assert re.findall(r"`(\w+)`", others) == [model.__name__ for model in OURS if not links_to_user(model)]


def test_users_are_linked_by_cascade_only() -> None:
    links = [field for model in OURS for field in links_to_user(model)]
    assert {field.remote_field.model for field in links} == {get_user_model()}
    assert {field.remote_field.on_delete for field in links} == {CASCADE}


def test_page_names_the_cookie_and_its_lifetime() -> None:
    [row] = re.findall(r"^\| the browser \|.*$", pages.text_of(PAGE), re.MULTILINE)
    assert f"`{browsers.COOKIE}`" in row
    assert row.endswith("| an hour |")
    assert timedelta(hours=1) == browsers.LIFETIME


def test_page_names_personal_fields_of_the_log() -> None:
    """A new field that is about a person has to be added to both pages."""
    log = pages.text_of("docs/monitoring.md").split("## Signals")[0]
    rows = dict(re.findall(r"^\| `([\w.]+)` \| [A-Z]+ \| (`.+?`) \|", log, re.MULTILINE))
    assert rows.keys() == set(get_args(events.Event))
    fields = {field for found in rows.values() for field in re.findall(r"`(\w+)`", found)}
    impersonal = {
        "airisk_status",
        "airisk_trace_id",
        "deployment",
        "duration",
        "endpoint",
        "error",
        "function",
        "method",
        "outcome",
        "paused",
        "reason",
        "refused",
        "renewed",
        "resolver",
        "setting",
        "skipped",
        "token_id",
        "token_renewed",
        "unavailable",
    }
    [row] = re.findall(r"^\| \[the log\].*$", pages.text_of(PAGE), re.MULTILINE)
    assert {field for field in fields if f"`{field}`" in row} == fields - impersonal


# Snippets


@pytest.fixture
def page() -> dict[str, Any]:
    given: dict[str, Any] = {}
    exec(pages.snippet(PAGE, "def erase_airisk_data"), given)  # noqa: S102 - the page's own
    return given


@pytest.mark.django_db
def test_data_of_one_user_can_be_exported(browser: Client, mia: User, airisk: World, page: dict[str, Any]) -> None:
    give_token(mia, failure_reason="No such user.")
    start(browser)
    ben = User.objects.create_user("ben")
    AIRiskIdentity.objects.create(user=ben, userid="canary")
    exported = json.loads(json.dumps(page["export_airisk_data"](mia), default=str))
    assert {name: len(rows) for name, rows in exported.items()} == {
        "AIRiskIdentity": 1,
        "AIRiskToken": 1,
        "PendingAuthorization": 1,
    }
    assert exported["AIRiskIdentity"][0]["userid"] == "user_42"
    assert exported["AIRiskToken"][0]["failure_reason"] == "No such user."
    text = json.dumps(exported)
    assert "canary" not in text
    assert AIRiskToken.objects.get().sealed not in text
    assert {model.__name__ for model in page["MODELS"]} == {name for name, _columns in COLUMNS}


@pytest.mark.django_db
def test_data_of_one_user_can_be_erased(
    browser: Client, mia: User, staff: User, airisk: World, page: dict[str, Any]
) -> None:
    give_token(mia)
    start(browser)
    kept = [give_token(staff), give_token(None)]
    page["erase_airisk_data"](mia)
    assert list(AIRiskToken.objects.order_by("pk")) == kept
    assert not AIRiskIdentity.objects.filter(user=mia).exists()
    assert not PendingAuthorization.objects.exists()
    assert User.objects.filter(pk=mia.pk).exists()


def test_history_of_one_user_can_be_erased(admin_client: Client, mia: User, staff: User) -> None:
    AIRiskIdentity.objects.create(user=staff, userid="user_421")
    act(admin_client, "delete_selected", give_token(mia), give_token(staff, userid="user_421"))
    assert [entry.object_repr for entry in LogEntry.objects.order_by("object_repr")] == [
        "user_42 (default)",
        "user_421 (default)",
    ]
    given: dict[str, Any] = {}
    exec(pages.snippet(PAGE, "def erase_history_of"), given)  # noqa: S102 - the page's own
    given["erase_history_of"]("user_42")
    assert [entry.object_repr for entry in LogEntry.objects.all()] == ["user_421 (default)"]


@pytest.mark.django_db
def test_deleting_a_user_deletes_their_rows(browser: Client, mia: User, airisk: World) -> None:
    give_token(mia)
    start(browser)
    mia.delete()
    assert not any(model._base_manager.exists() for model in OURS)


@pytest.mark.django_db
def test_unused_tokens_can_be_deleted(mia: User, staff: User) -> None:
    give_token(mia, last_used_at=timezone.now() - timedelta(days=366))
    kept = [give_token(staff), give_token(None, last_used_at=timezone.now() - timedelta(days=366))]
    exec(pages.snippet("docs/privacy.md", "long_ago"), {})  # noqa: S102 - the page's own
    assert list(AIRiskToken.objects.order_by("pk")) == kept
