"""What a failed renewal leaves on a row, and how long it pauses the next."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from airisk_oauth.database.failures import COOL_DOWN, MAX_COOL_DOWN, NO_FAILURE
from airisk_oauth.exceptions import (
    AIRiskError,
    AIRiskInvalidResponse,
    AIRiskRefused,
    AIRiskUnavailable,
    ConnectionRequired,
)
from airisk_oauth.models import AIRiskToken
from airisk_oauth.oauth.messages import Secret, TokenGrant
from tests.support.rows import as_stored

NOW = datetime.fromisoformat("2025-03-31T12:00:00+00:00")
HOUR = timedelta(hours=1)
TOKEN: dict[str, Any] = {"access_token": "canary-token"}

pytestmark = pytest.mark.django_db


NEEDING_A_PERSON: list[AIRiskError] = [
    AIRiskRefused(401, "Unauthorized", "00-1"),
    AIRiskRefused(302),
    ConnectionRequired("Connect.", deployment="second"),
]
PASSING: list[AIRiskError] = [AIRiskUnavailable("Down."), AIRiskInvalidResponse("Odd.")]


def stored_with(error: AIRiskError) -> AIRiskToken:
    """Store a token whose renewal has failed with this error, and read it anew."""
    token = AIRiskToken.objects.create(deployment="second")
    token.record_failure(error, NOW)
    token.save()
    return as_stored(token)


@pytest.mark.parametrize("error", NEEDING_A_PERSON, ids=repr)
def test_failure_that_needs_a_person_is_stored(error: AIRiskError) -> None:
    token = stored_with(error)
    assert type(token.last_error()) is type(error)
    assert vars(token.last_error()) == vars(error)
    assert token.needs_person


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_failure_that_may_pass_is_stored(error: AIRiskError) -> None:
    token = stored_with(error)
    assert type(token.last_error()) is type(error)
    assert not token.needs_person


def test_longest_reason_fits_its_column() -> None:
    token = AIRiskToken.objects.create()
    token.record_failure(AIRiskRefused(599, "r" * 120, "t" * 128), NOW)
    token.save()
    assert as_stored(token).failure_reason == "r" * 120


def test_new_failure_replaces_the_one_before() -> None:
    token = AIRiskToken()
    token.record_failure(NEEDING_A_PERSON[0], NOW)
    token.record_failure(AIRiskUnavailable("Down."), NOW)
    assert (token.failure_status, token.failure_reason, token.failure_trace_id) == (None, "", "")


def test_failures_are_counted_and_keep_the_token() -> None:
    token = AIRiskToken(**TOKEN, expires_at=NOW + HOUR, renewed_at=NOW - HOUR)
    for number in range(3):
        token.record_failure(AIRiskUnavailable("Down."), NOW + number * HOUR)
    assert (token.failure_count, token.failing_since, token.failed_at) == (3, NOW, NOW + 2 * HOUR)
    assert (token.access_token, token.expires_at, token.renewed_at) == ("canary-token", NOW + HOUR, NOW - HOUR)


@pytest.mark.parametrize("before", [0, 1, 2, 6, 7, 10, 10_000])
def test_pause_doubles_from_30_seconds_to_an_hour(before: int) -> None:
    assert (COOL_DOWN.total_seconds(), MAX_COOL_DOWN.total_seconds()) == (30, 3600)
    pause = timedelta(seconds=min(30 * 2**before, 3600))
    pauses = set()
    for _ in range(50):
        token = AIRiskToken(failure_count=before)
        token.record_failure(AIRiskInvalidResponse("Odd."), NOW)
        assert token.retry_at is not None
        pauses.add(token.retry_at - NOW)
    assert pause <= min(pauses) < max(pauses) <= pause * 1.2


@pytest.mark.parametrize("error", [NEEDING_A_PERSON[0], ConnectionRequired("A page.")])
@pytest.mark.parametrize(("before", "seconds"), [(0, 30), (7, 3840), (11, 61_440), (12, 86_400), (10_000, 86_400)])
def test_pause_for_a_person_grows_to_a_day(error: AIRiskError, before: int, seconds: int) -> None:
    token = AIRiskToken(failure_count=before)
    token.record_failure(error, NOW)
    assert token.retry_at is not None
    assert timedelta(seconds=seconds) <= token.retry_at - NOW <= timedelta(seconds=seconds * 1.2)


@pytest.mark.parametrize(("before", "asked", "least"), [(0, 60, 60), (0, 5, 30), (3, 60, 240), (0, None, 30)])
def test_pause_is_as_long_as_airisk_asks(before: int, asked: float | None, least: float) -> None:
    token = AIRiskToken(failure_count=before)
    token.record_failure(AIRiskUnavailable("Down.", retry_after=asked), NOW)
    assert token.retry_at is not None
    assert timedelta(seconds=least) <= token.retry_at - NOW <= timedelta(seconds=least * 1.2)


def test_renewal_forgets_the_failures() -> None:
    token = AIRiskToken(**TOKEN, failure_count=2)
    token.record_failure(NEEDING_A_PERSON[0], NOW)
    token.apply(TokenGrant(Secret("new-token"), NOW + 2 * HOUR), NOW + HOUR)
    fresh = AIRiskToken()
    assert (token.access_token, token.expires_at, token.renewed_at) == ("new-token", NOW + 2 * HOUR, NOW + HOUR)
    assert [getattr(token, name) for name in NO_FAILURE] == [getattr(fresh, name) for name in NO_FAILURE]
    assert not token.needs_person
