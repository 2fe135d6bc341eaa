"""When a token is renewed, by one caller at a time, and never replaced by anything worse."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
import responses
from cryptography.fernet import Fernet
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.utils import timezone

from airisk_oauth import conf
from airisk_oauth.client.bearer import BearerPolicy
from airisk_oauth.connecting import flow
from airisk_oauth.database.expiry import is_recent
from airisk_oauth.exceptions import AIRiskError, AIRiskUnavailable, ConnectionRequired
from airisk_oauth.models import AIRiskToken
from airisk_oauth.oauth.calls import run
from airisk_oauth.oauth.messages import Secret, TokenGrant
from airisk_oauth.sandbox.world import World
from airisk_oauth.tokens import leases
from airisk_oauth.tokens.outcomes import store
from airisk_oauth.tokens.renewal import Credential, Renewal
from airisk_oauth.tokens.stored import APPLICATION, StoredToken
from airisk_oauth.tokens.waiting import BLOCKING
from tests.support.browsing import at_each_request
from tests.support.clock import set_clock
from tests.support.database import committing
from tests.support.options import set_option
from tests.support.people import credential, give_token, renew_token, stored, stored_token, token_requests
from tests.support.signals import renewals_sent
from tests.support.threads import attempt, in_threads
from tests.support.wire import BASE_URL, silent_flow

pytestmark = pytest.mark.django_db


# When a renewal is due


def call_in_transaction(user: User, ends_in: float | None, life: float) -> tuple[bool, bool]:
    """Use a token of this lifetime in a transaction; tell whether it was renewed inside, and after the commit.

    What can wait is done after the commit.
    """
    issued_at = timezone.now() + timedelta(seconds=(ends_in or 0) - life)
    give_token(user, ends_in=ends_in, renewed_at=issued_at)
    with transaction.atomic():
        inside = credential(user).token != "stored-token"
    return inside, stored(user).access_token != "stored-token"


@committing
@pytest.mark.parametrize(("ends_in", "life"), [(310, 3600), (110, 400), (None, 0)])
def test_valid_token_is_not_renewed(airisk: World, mia: User, ends_in: float | None, life: float) -> None:
    assert call_in_transaction(mia, ends_in, life) == (False, False)
    assert not token_requests(airisk)


@committing
@pytest.mark.parametrize(("ends_in", "life"), [(290, 3600), (90, 400), (12, 400)])
def test_token_that_expires_soon_is_renewed(airisk: World, mia: User, ends_in: float, life: float) -> None:
    """``RENEW_BEFORE`` seconds before expiry a renewal is due, but not in the first three quarters of the lifetime."""
    assert call_in_transaction(mia, ends_in, life) == (False, True)
    assert len(token_requests(airisk)) == 1


@committing
@pytest.mark.parametrize("ends_in", [9, -5])
def test_expired_token_is_renewed_at_once(airisk: World, mia: User, ends_in: float) -> None:
    """It counts as expired 10 seconds early, because clocks differ."""
    assert call_in_transaction(mia, ends_in, 400) == (True, True)
    assert len(token_requests(airisk)) == 1


@committing
def test_renew_before_decides_how_early_to_renew(airisk: World, settings: Any, mia: User) -> None:
    give_token(mia, ends_in=290)
    set_option(settings, RENEW_BEFORE=280)
    assert credential(mia).token == "stored-token"
    set_option(settings, RENEW_BEFORE=295)
    assert credential(mia).token == stored(mia).access_token != "stored-token"


@committing
@pytest.mark.parametrize("life", [20, 30, 39])
def test_short_lived_token_is_renewed_early(airisk: World, mia: User, life: float) -> None:
    """Otherwise callers would have to wait for it."""
    issued_at = timezone.now() - timedelta(seconds=life * 0.8)
    give_token(mia, ends_in=life * 0.2, renewed_at=issued_at)
    airisk.switches.outage = True
    assert credential(mia).token == "stored-token"
    assert stored(mia).failure_count == 1


def test_token_without_expiry_is_used_until_a_401(airisk: World, mia: User, monkeypatch: pytest.MonkeyPatch) -> None:
    give_token(mia, ends_in=None)
    set_clock(monkeypatch, 10 * 365 * 86400)
    assert credential(mia).token == "stored-token"
    assert not airisk.journal
    airisk.switches.token_life = None
    assert credential(mia, rejected="stored-token").token != "stored-token"
    assert stored(mia).expires_at is None


def test_rejected_token_is_renewed_before_expiry(airisk: World, mia: User) -> None:
    give_token(mia)
    token = credential(mia, rejected="stored-token").token
    assert token == stored(mia).access_token != "stored-token"
    # Another caller, who learns late that the old token was rejected.
    assert credential(mia, rejected="stored-token").token == token
    assert len(token_requests(airisk)) == 1


@committing
def test_token_issued_twice_is_not_renewed_again(mia: User) -> None:
    """If AIRisk answers a rejected token with the same token, another renewal would not help."""
    give_token(mia)
    with responses.RequestsMock() as wire:
        silent_flow(wire, {"json": {"access_token": "stored-token"}})
        for _call in range(3):
            bearer = BearerPolicy(conf.deployment(), mia)
            assert run(bearer.replacement(run(bearer.credential(BLOCKING)).token, BLOCKING)) is None
        assert [call.request.method for call in wire.calls] == ["GET", "POST"]


# Several callers


@committing
def test_one_caller_renews_early_others_go_on(airisk: World, mia: User) -> None:
    give_token(mia, ends_in=200)
    airisk.switches.latency = 0.3
    tokens = Counter(str(each.token) for each in in_threads(8, partial(credential, mia)))  # type: ignore[union-attr]
    assert tokens == {"stored-token": 7, str(stored(mia).access_token): 1}
    assert len(token_requests(airisk)) == 1


@committing
@pytest.mark.parametrize("ends_in", [-60, 5])
def test_one_caller_renews_while_the_others_wait(airisk: World, mia: User, ends_in: float) -> None:
    give_token(mia, ends_in=ends_in)
    airisk.switches.latency = 0.1
    tokens = {each.token for each in in_threads(20, partial(credential, mia))}  # type: ignore[union-attr]
    assert tokens == {stored(mia).access_token} != {"stored-token"}
    assert len(token_requests(airisk)) == 1


@committing
def test_waiting_callers_share_the_error(airisk: World, mia: User) -> None:
    give_token(mia, ends_in=-60)
    airisk.switches.latency, airisk.switches.outage = 0.1, True
    assert {type(answer) for answer in in_threads(20, partial(credential, mia))} == {AIRiskUnavailable}
    assert len(airisk.journal) == 1


def test_renewal_is_not_repeated_after_another(airisk: World, mia: User) -> None:
    """Another process finishes one between this caller's look at the row and its claim, which leaves no lease."""
    token = give_token(mia, ends_in=60)
    faster = [timezone.now()]

    def just_before(execute: Any, sql: str, *args: Any) -> Any:
        if faster and ("FOR UPDATE" in sql or 'SET "lease"' in sql):
            AIRiskToken.objects.filter(pk=token.pk).update(failed_at=faster.pop())
        return execute(sql, *args)

    with connection.execute_wrapper(just_before):
        assert renew_token(mia) is False
    assert not faster
    assert stored(mia).lease is None
    assert not airisk.journal


# Leases


@committing
def test_lease_is_waited_for_until_the_timeout(airisk: World, settings: Any, mia: User) -> None:
    """Its holder may have died. AIRisk issues a token to everyone who asks, and the new token is stored."""
    set_option(settings, TIMEOUT=(5, 1))
    seconds = leases.lease_seconds(conf.deployment()) - 1
    give_token(mia, ends_in=-60, lease=uuid4(), lease_until=timezone.now() + timedelta(seconds=seconds))
    began = time.monotonic()
    assert renew_token(mia) is False
    assert not airisk.journal
    token = credential(mia).token
    assert time.monotonic() - began >= 1
    assert token == stored(mia).access_token != "stored-token"


@committing
@pytest.mark.parametrize("seconds", [-1, 95, 8 * 3600], ids=["expired", "longer than any", "of a wrong clock"])
def test_impossible_lease_makes_no_caller_wait(airisk: World, settings: Any, mia: User, seconds: float) -> None:
    set_option(settings, TIMEOUT=(5, 60))
    give_token(mia, ends_in=-60, lease=uuid4(), lease_until=timezone.now() + timedelta(seconds=seconds))
    began = time.monotonic()
    assert credential(mia).token == stored(mia).access_token != "stored-token"
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("crash", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_crash_releases_lease_and_keeps_token(mia: User, crash: type[BaseException]) -> None:
    give_token(mia, ends_in=-60)

    def crashing(request: Any) -> Any:
        assert stored(mia).lease is not None
        raise crash

    with responses.RequestsMock() as wire:
        wire.add_callback(responses.GET, f"{BASE_URL}/api/oauth2", crashing)
        with pytest.raises(crash):
            credential(mia)
    row = stored(mia)
    assert (row.lease, row.lease_until, row.failure_count) == (None, None, 0)
    assert row.access_token == "stored-token"


@contextmanager
def renewing_slowly(airisk: World, user: User) -> Iterator["Future[Credential | AIRiskError]"]:
    """Be there while AIRisk takes its time for the renewal of another caller, who then tries to store the token."""
    give_token(user, ends_in=-60)
    airisk.switches.latency = 0.3
    asked = threading.Event()
    with ThreadPoolExecutor(1) as pool, at_each_request("/api/oauth2", asked.set):
        late = pool.submit(attempt, partial(credential, user))
        assert asked.wait(60)
        yield late


@committing
def test_late_renewal_does_not_undo_a_disconnect(airisk: World, mia: User) -> None:
    with renewals_sent() as sent, renewing_slowly(airisk, mia) as late:
        flow.disconnect(stored(mia))
    assert isinstance(late.result(), ConnectionRequired)
    assert not AIRiskToken.objects.exists()
    assert (len(token_requests(airisk)), sent) == (1, [])


@committing
def test_late_renewal_does_not_undo_a_reconnect(airisk: World, mia: User) -> None:
    with renewals_sent() as sent, renewing_slowly(airisk, mia) as late:
        store(mia.pk, "default", "user_42", TokenGrant(Secret("fresh"), None))
    answer = late.result()
    assert not isinstance(answer, AIRiskError)
    assert answer.token == stored(mia).access_token == "fresh"
    assert (len(token_requests(airisk)), sent) == (1, [])


@committing
def test_late_renewal_does_not_undo_a_later_one(airisk: World, mia: User) -> None:
    """The lease of the late one has expired, and another caller has taken over."""
    with renewals_sent() as sent, renewing_slowly(airisk, mia) as late:
        AIRiskToken.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
        token = credential(mia).token
    answer = late.result()
    assert not isinstance(answer, AIRiskError)
    assert answer.token == stored(mia).access_token == token
    assert (len(token_requests(airisk)), len(sent)) == (2, 1)


# Hosts that are set wrong


in_8_hours = pytest.mark.parametrize(
    "field", ["failed_at", "refused_anew_at", "retry_at", "last_used_at", "renewed_at"]
)


def set_8_hours_ahead(field: str) -> None:
    AIRiskToken.objects.update(**{field: timezone.now() + timedelta(hours=8)})


@committing
@in_8_hours
def test_time_in_the_future_delays_no_renewal(airisk: World, mia: User, field: str) -> None:
    give_token(mia, ends_in=-5)
    set_8_hours_ahead(field)
    token = run(BearerPolicy(conf.deployment(), mia).credential(BLOCKING)).token
    assert token == stored(mia).access_token != "stored-token"
    assert is_recent(stored(mia).renewed_at, timezone.now(), timedelta(minutes=1))


@committing
@in_8_hours
def test_time_in_the_future_delays_no_replacement(airisk: World, mia: User, field: str) -> None:
    """A token that expires soon is replaced after a 401."""
    give_token(mia, ends_in=100)
    set_8_hours_ahead(field)
    bearer = BearerPolicy(conf.deployment(), mia)
    run(bearer.replacement(run(bearer.credential(BLOCKING)).token, BLOCKING))
    token = run(bearer.credential(BLOCKING)).token
    assert token == stored(mia).access_token != "stored-token"
    assert is_recent(stored(mia).renewed_at, timezone.now(), timedelta(minutes=1))


@committing
@pytest.mark.parametrize("ends_in", [-60, 60, 3600])
def test_host_with_a_wrong_key_replaces_no_token(airisk: World, settings: Any, mia: User, ends_in: float) -> None:
    right, wrong = ([Fernet.generate_key().decode()] for _ in range(2))
    settings.AIRISK_OAUTH_ENCRYPTION_KEYS = right
    give_token(mia, ends_in=ends_in)
    settings.AIRISK_OAUTH_ENCRYPTION_KEYS = wrong
    for work in (partial(credential, mia), stored_token(mia).check, partial(renew_token, mia)):
        with pytest.raises(ConnectionRequired) as caught:
            work()
        assert caught.value.connect_url == "/airisk/connect/"
    settings.AIRISK_OAUTH_ENCRYPTION_KEYS = right
    assert stored(mia).access_token == "stored-token"
    assert stored(mia).lease is None
    assert not airisk.journal


# Without silent renewal, and for the application


def test_token_is_used_without_silent_renewal(airisk: World, settings: Any, mia: User) -> None:
    set_option(settings, SILENT_RENEWAL=False)
    give_token(mia, ends_in=60)
    assert credential(mia).token == "stored-token"
    assert not airisk.journal


@pytest.mark.parametrize("ends_in", [60, -1])
def test_silent_renewal_can_be_switched_off(airisk: World, settings: Any, mia: User, ends_in: float) -> None:
    set_option(settings, SILENT_RENEWAL=False)
    give_token(mia, ends_in=ends_in)
    for work in (partial(renew_token, mia), lambda: credential(mia, rejected="stored-token")):
        with pytest.raises(ConnectionRequired):
            work()
    assert not airisk.journal


def test_application_has_a_token_per_deployment(airisk: World) -> None:
    token = run(Renewal(StoredToken(conf.deployment("second"), APPLICATION)).credential()).token
    assert (AIRiskToken.objects.get().deployment, AIRiskToken.objects.get().access_token) == ("second", token)
