"""The row of a token: whether a call can use it, for how long it is trusted, and when its use is noted."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from airisk_oauth.exceptions import ConnectionRequired
from airisk_oauth.sandbox.world import World
from airisk_oauth.tokens.stored import APPLICATION
from tests.support.clock import set_clock
from tests.support.database import committing
from tests.support.options import set_option
from tests.support.people import credential, give_token, stored, stored_token

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("values", "is_silent"),
    [
        ({"ends_in": 3600}, True),
        ({"ends_in": -60}, True),
        ({"ends_in": 60}, False),
        ({"ends_in": -60, "failure_kind": "unavailable"}, True),
        ({"ends_in": 60, "failure_kind": "person"}, True),
    ],
)
def test_check_returns_a_token_that_can_be_used(
    airisk: World, settings: Any, mia: User, values: dict[str, Any], is_silent: bool
) -> None:
    set_option(settings, SILENT_RENEWAL=is_silent)
    give_token(mia, **values)
    assert stored_token(mia).check() == stored(mia)
    assert not airisk.journal


def assert_check_requires_a_connection(user: User) -> None:
    with pytest.raises(ConnectionRequired) as caught:
        stored_token(user).check()
    assert caught.value.connect_url == "/airisk/connect/"


@pytest.mark.parametrize(
    ("values", "is_silent"),
    [
        ({"ends_in": -60}, False),
        ({"ends_in": -60, "failure_kind": "refused", "failure_status": 400}, True),
        ({"ends_in": -60, "failure_kind": "person"}, True),
        ({"userid": "user_7"}, True),
    ],
)
def test_check_requires_a_person_without_a_call(
    airisk: World, settings: Any, mia: User, values: dict[str, Any], is_silent: bool
) -> None:
    set_option(settings, SILENT_RENEWAL=is_silent)
    give_token(mia, **values)
    assert_check_requires_a_connection(mia)
    assert not airisk.journal


def test_check_requires_a_person_without_a_token(airisk: World, mia: User) -> None:
    assert_check_requires_a_connection(mia)
    assert not airisk.journal


@pytest.mark.parametrize(
    ("ends_in", "is_pausing", "seconds"),
    [(None, False, 60), (3600, False, 60), (330, False, 30), (200, True, 5), (13, True, 3)],
)
def test_token_is_read_again_within_a_minute(
    mia: User, ends_in: float | None, is_pausing: bool, seconds: float
) -> None:
    """After a minute, or when a renewal is due; while it is due, after a few seconds, or shortly before expiry."""
    before = timezone.now()
    give_token(mia, ends_in=ends_in, retry_at=before + timedelta(hours=1) if is_pausing else None)
    trusted_until = credential(mia).trusted_until
    assert before <= trusted_until - timedelta(seconds=seconds) <= timezone.now()


@committing
def test_last_use_is_written_once_an_hour(airisk: World, mia: User, monkeypatch: pytest.MonkeyPatch) -> None:
    give_token(mia, ends_in=86400)
    noted = [stored(mia).last_used_at]
    for minutes in (59, 61, 119, 123):
        set_clock(monkeypatch, minutes * 60)
        credential(mia)
        noted.append(stored(mia).last_used_at)
    assert noted[0] == noted[1] < noted[2] == noted[3] < noted[4]


@committing
def test_last_use_is_written_after_the_commit(airisk: World, mia: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the row would be locked until the caller's transaction is over."""
    give_token(mia, ends_in=86400)
    before = stored(mia).last_used_at
    set_clock(monkeypatch, 5 * 3600)
    with transaction.atomic():
        credential(mia)
        assert stored(mia).last_used_at == before
    assert stored(mia).last_used_at > before


def test_application_is_named_in_tracebacks() -> None:
    assert repr(APPLICATION) == "the application"
