"""Renewals that fail: what is recorded, what callers get, and when the next attempt is made."""

import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from airisk_oauth.database.failures import NO_FAILURE
from airisk_oauth.exceptions import (
    AIRiskError,
    AIRiskInvalidResponse,
    AIRiskRefused,
    AIRiskUnavailable,
    ConnectionRequired,
)
from airisk_oauth.models import AIRiskToken
from airisk_oauth.oauth.messages import Secret, TokenGrant
from airisk_oauth.sandbox.world import World
from airisk_oauth.tokens.outcomes import store
from tests.support.clock import set_clock
from tests.support.database import committing
from tests.support.options import trouble
from tests.support.people import credential, give_token, stored

pytestmark = pytest.mark.django_db

#: What AIRisk does; what the row then says; and what a user and the application get.
FAILURES = [
    ("outage", ("unavailable", None, ""), AIRiskUnavailable, AIRiskUnavailable),
    ("malformed", ("invalid", None, ""), AIRiskInvalidResponse, AIRiskInvalidResponse),
    ("login_page", ("person", None, ""), ConnectionRequired, ConnectionRequired),
    ("refuse", ("refused", 302, "access_denied"), ConnectionRequired, AIRiskRefused),
    ("unknown client", ("refused", 401, "Unauthorized"), ConnectionRequired, AIRiskRefused),
]
of_each_owner = pytest.mark.parametrize("is_user", [True, False], ids=["user", "application"])
after_each_failure = pytest.mark.parametrize("what", [what for what, *_expected in FAILURES])


def failing_call(user: User | None) -> AIRiskError:
    with pytest.raises(AIRiskError) as caught:
        credential(user)
    return caught.value


def flows(airisk: World) -> int:
    return sum(seen.endpoint == "/api/oauth2" for seen in airisk.journal)


@pytest.mark.parametrize(("what", "failure", "for_user", "for_application"), FAILURES)
@of_each_owner
def test_failure_is_recorded_and_the_token_kept(
    airisk: World,
    settings: Any,
    mia: User,
    what: str,
    failure: tuple[str, int | None, str],
    for_user: type[AIRiskError],
    for_application: type[AIRiskError],
    is_user: bool,
) -> None:
    user, expected = (mia, for_user) if is_user else (None, for_application)
    give_token(user, ends_in=-60)
    trouble(airisk, settings, what)
    began = timezone.now()
    error, row = failing_call(user), stored(user)
    assert type(error) is expected
    assert (row.access_token, row.lease) == ("stored-token", None)
    assert (row.failure_kind, row.failure_status, row.failure_reason) == failure
    assert row.failure_count == 1
    assert row.failed_at is not None
    assert row.failing_since == row.failed_at > began


@after_each_failure
@of_each_owner
def test_error_is_repeated_for_5_s_without_a_call(
    airisk: World, settings: Any, mia: User, what: str, is_user: bool
) -> None:
    user = mia if is_user else None
    give_token(user, ends_in=-60)
    trouble(airisk, settings, what)
    errors, failed_at = [failing_call(user)], stored(user).failed_at
    errors.append(failing_call(user))
    assert type(errors[0]) is type(errors[1])
    assert (stored(user).failure_count, stored(user).failed_at) == (1, failed_at)
    assert flows(airisk) == 1


@after_each_failure
@of_each_owner
def test_failed_renewal_is_tried_again_after_5_s(
    airisk: World, settings: Any, mia: User, monkeypatch: pytest.MonkeyPatch, what: str, is_user: bool
) -> None:
    user = mia if is_user else None
    give_token(user, ends_in=-60)
    trouble(airisk, settings, what)
    errors = [failing_call(user)]
    set_clock(monkeypatch, 6)
    errors.append(failing_call(user))
    row = stored(user)
    assert type(errors[0]) is type(errors[1])
    assert (row.access_token, row.lease, row.failure_count) == ("stored-token", None, 2)
    assert row.failed_at is not None
    assert row.failing_since is not None
    assert row.failed_at > row.failing_since
    assert flows(airisk) == 2


@pytest.mark.parametrize("what", ["login_page", "refuse", "unknown client"])
def test_error_names_the_page_to_connect_on(airisk: World, settings: Any, mia: User, what: str) -> None:
    give_token(mia, ends_in=-60)
    trouble(airisk, settings, what)
    for error in (failing_call(mia), failing_call(mia)):
        assert isinstance(error, ConnectionRequired)
        assert (error.deployment, error.connect_url) == ("default", "/airisk/connect/")
        assert isinstance(error.__cause__, AIRiskRefused) == (what != "login_page")


def test_application_has_no_page_to_connect_on(airisk: World, settings: Any) -> None:
    give_token(None, ends_in=-60)
    trouble(airisk, settings, "login_page")
    for error in (failing_call(None), failing_call(None)):
        assert isinstance(error, ConnectionRequired)
        assert (error.deployment, error.connect_url) == ("default", None)
        assert not isinstance(error.__cause__, AIRiskRefused)


@pytest.mark.parametrize(
    ("what", "reason", "trace_id"),
    [("refuse", "access_denied", ""), ("unknown client", "Unauthorized", r"[\w.:|-]+"), ("outage", "", "")],
)
@of_each_owner
def test_error_gives_airisks_reason_and_trace_id(
    airisk: World, settings: Any, mia: User, what: str, reason: str, trace_id: str, is_user: bool
) -> None:
    """AIRisk's support asks for the trace id, so that whoever reads the error needs it."""
    user = mia if is_user else None
    give_token(user, ends_in=-60)
    trouble(airisk, settings, what)
    for error in (failing_call(user), failing_call(user)):
        assert re.fullmatch(trace_id, stored(user).failure_trace_id)
        assert stored(user).failure_trace_id in str(error)
        assert reason in str(error)


@committing
def test_pause_grows_after_each_early_failure(airisk: World, mia: User, monkeypatch: pytest.MonkeyPatch) -> None:
    give_token(mia, ends_in=290)
    airisk.switches.outage = True
    since = 0.0
    for failures, (seconds, pause) in enumerate([(0.0, 30), (40.0, 60), (120.0, 120)], start=1):
        # Just before the pause is over, and then.
        for now in (since, seconds):
            set_clock(monkeypatch, now)
            assert credential(mia).token == "stored-token"
        row = stored(mia)
        assert row.retry_at is not None
        assert row.failed_at is not None
        assert pause <= (row.retry_at - row.failed_at).total_seconds() <= 1.2 * pause
        assert row.failure_count == len(airisk.journal) == failures
        since = seconds + pause - 1


@committing
def test_pause_that_airisk_asks_for_is_observed(airisk: World, mia: User, monkeypatch: pytest.MonkeyPatch) -> None:
    give_token(mia, ends_in=200)
    airisk.switches.outage, airisk.switches.retry_after = True, 60
    for seconds, calls in ((0, 1), (58, 1), (62, 2)):
        set_clock(monkeypatch, seconds)
        assert credential(mia).token == "stored-token"
        assert len(airisk.journal) == calls


def assert_no_failure_is_recorded(user: User) -> None:
    blank, row = AIRiskToken(), stored(user)
    assert all(getattr(row, name) == getattr(blank, name) for name in NO_FAILURE)


def test_reconnecting_clears_the_failure(airisk: World, mia: User) -> None:
    give_token(mia, ends_in=-60)
    airisk.switches.outage = True
    assert isinstance(failing_call(mia), AIRiskUnavailable)
    airisk.switches.outage = False
    store(mia.pk, "default", "user_42", TokenGrant(Secret("fresh"), None))
    assert credential(mia).token == stored(mia).access_token == "fresh"
    assert_no_failure_is_recorded(mia)


def test_successful_renewal_clears_the_failure(airisk: World, mia: User, monkeypatch: pytest.MonkeyPatch) -> None:
    give_token(mia, ends_in=-60)
    airisk.switches.outage = True
    assert isinstance(failing_call(mia), AIRiskUnavailable)
    airisk.switches.outage = False
    set_clock(monkeypatch, 6)
    assert credential(mia).token == stored(mia).access_token != "stored-token"
    assert_no_failure_is_recorded(mia)
