"""One renewal at a time per token, and never a token worse than the one that was there."""

import logging
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar
from uuid import uuid4

import pytest
import requests
import responses
from cryptography.fernet import Fernet
from django.contrib.auth.models import User
from django.core.signals import request_started
from django.db import InterfaceError, OperationalError, connection, transaction
from django.utils import timezone

from airisk_oauth import conf
from airisk_oauth.client.bearer import BearerPolicy
from airisk_oauth.connecting import flow
from airisk_oauth.database.expiry import is_recent
from airisk_oauth.database.failures import NO_FAILURE
from airisk_oauth.exceptions import (
    AIRiskError,
    AIRiskInvalidResponse,
    AIRiskRefused,
    AIRiskUnavailable,
    ConnectionRequired,
)
from airisk_oauth.models import AIRiskIdentity, AIRiskToken
from airisk_oauth.oauth.calls import run
from airisk_oauth.oauth.messages import Secret, TokenGrant
from airisk_oauth.sandbox.world import World
from airisk_oauth.signals import token_renewed
from airisk_oauth.tokens import leases, unwritten
from airisk_oauth.tokens.outcomes import store
from airisk_oauth.tokens.renewal import Renewal
from airisk_oauth.tokens.stored import APPLICATION, StoredToken
from airisk_oauth.tokens.waiting import BLOCKING
from tests.support.clock import set_clock
from tests.support.database import committing, on_postgresql_only
from tests.support.options import set_option, trouble
from tests.support.people import credential, give_token, renew_token, stored, stored_token, token_requests
from tests.support.signals import renewals_sent
from tests.support.threads import attempt, attempt_here, in_threads
from tests.support.wire import BASE_URL, silent_flow

pytestmark = pytest.mark.django_db

Result = TypeVar("Result")


# The two windows


@committing
@pytest.mark.parametrize(
    ("ends_in", "life", "window"),
    [
        (310, 3600, "lives"),
        (290, 3600, "ends soon"),
        # At most a quarter of the token's life.
        (110, 400, "lives"),
        (90, 400, "ends soon"),
        # Within 10 s of its end it counts as ended: clocks differ.
        (12, 400, "ends soon"),
        (9, 400, "ended"),
        (-5, 400, "ended"),
        (None, 0, "lives"),
    ],
)
def test_a_token_is_renewed_early_or_must_be(
    airisk: World, mia: User, ends_in: float | None, life: float, window: str
) -> None:
    born = timezone.now() + timedelta(seconds=(ends_in or 0) - life)
    give_token(mia, ends_in=ends_in, renewed_at=born)
    with transaction.atomic():
        # What can wait waits for the end of the transaction.
        renewed_at_once = credential(mia).token != "stored-token"
    renewed = stored(mia).access_token != "stored-token"
    assert (renewed_at_once, renewed) == {
        "lives": (False, False),
        "ends soon": (False, True),
        "ended": (True, True),
    }[window]
    assert len(token_requests(airisk)) == renewed


@committing
def test_renew_before_decides_how_early(airisk: World, settings: Any, mia: User) -> None:
    give_token(mia, ends_in=290)
    set_option(settings, RENEW_BEFORE=280)
    assert credential(mia).token == "stored-token"
    set_option(settings, RENEW_BEFORE=295)
    assert credential(mia).token == stored(mia).access_token != "stored-token"


@committing
def test_soon_to_end_one_renews_and_the_others_do_not_wait(airisk: World, mia: User) -> None:
    give_token(mia, ends_in=200)
    airisk.switches.latency = 0.3
    tokens = Counter(str(access.token) for access in in_threads(8, partial(credential, mia)))  # type: ignore[union-attr]
    assert tokens == {"stored-token": 7, str(stored(mia).access_token): 1}
    assert len(token_requests(airisk)) == 1


@committing
@pytest.mark.parametrize("ends_in", [-60, 5])
def test_ended_one_renews_and_the_others_use_what_it_brought(airisk: World, mia: User, ends_in: float) -> None:
    give_token(mia, ends_in=ends_in)
    airisk.switches.latency = 0.1
    tokens = {access.token for access in in_threads(20, partial(credential, mia))}  # type: ignore[union-attr]
    assert tokens == {stored(mia).access_token} != {"stored-token"}
    assert len(token_requests(airisk)) == 1


@committing
def test_ended_and_failing_all_get_the_error_of_one_call(airisk: World, mia: User) -> None:
    give_token(mia, ends_in=-60)
    airisk.switches.latency, airisk.switches.outage = 0.1, True
    assert {type(answer) for answer in in_threads(20, partial(credential, mia))} == {AIRiskUnavailable}
    assert len(airisk.journal) == 1


def test_refused_by_a_401_it_is_renewed_whatever_its_end(airisk: World, mia: User) -> None:
    give_token(mia)
    token = credential(mia, rejected="stored-token").token
    assert token == stored(mia).access_token != "stored-token"
    # The answer to somebody who is late with the old one.
    assert credential(mia, rejected="stored-token").token == token
    assert len(token_requests(airisk)) == 1


def test_a_token_without_an_end_is_used_until_a_401(airisk: World, mia: User, monkeypatch: pytest.MonkeyPatch) -> None:
    give_token(mia, ends_in=None)
    set_clock(monkeypatch, 10 * 365 * 86400)
    assert credential(mia).token == "stored-token"
    assert not airisk.journal
    airisk.switches.token_life = None
    assert credential(mia, rejected="stored-token").token != "stored-token"
    assert stored(mia).expires_at is None


@pytest.mark.parametrize(
    ("ends_in", "is_cooling", "seconds"),
    [(None, False, 60), (3600, False, 60), (330, False, 30), (200, True, 5), (13, True, 3)],
)
def test_a_token_is_not_trusted_for_long_nor_beyond_what_is_known_of_it(
    mia: User, ends_in: float | None, is_cooling: bool, seconds: float
) -> None:
    """A minute, or until it is due; a few seconds while it is, or until shortly before its end."""
    before = timezone.now()
    give_token(mia, ends_in=ends_in, retry_at=before + timedelta(hours=1) if is_cooling else None)
    trusted_until = credential(mia).trusted_until
    assert before <= trusted_until - timedelta(seconds=seconds) <= timezone.now()


@pytest.mark.parametrize("alive", [True, False])
def test_without_silent_renewal_a_token_is_used_to_its_end(
    airisk: World, settings: Any, mia: User, alive: bool
) -> None:
    set_option(settings, SILENT_RENEWAL=False)
    give_token(mia, ends_in=60 if alive else -1)
    if alive:
        assert credential(mia).token == "stored-token"
    for work in (partial(renew_token, mia), lambda: credential(mia, rejected="stored-token")):
        with pytest.raises(ConnectionRequired):
            work()
    assert not airisk.journal


# Failures

FAILURES = [
    ("outage", ("unavailable", None, ""), AIRiskUnavailable, AIRiskUnavailable),
    ("malformed", ("invalid", None, ""), AIRiskInvalidResponse, AIRiskInvalidResponse),
    ("login_page", ("person", None, ""), ConnectionRequired, ConnectionRequired),
    ("refuse", ("refused", 302, "access_denied"), ConnectionRequired, AIRiskRefused),
    ("unknown client", ("refused", 401, "Unauthorized"), ConnectionRequired, AIRiskRefused),
]


@pytest.mark.parametrize(("what", "noted", "for_user", "for_application"), FAILURES)
@pytest.mark.parametrize("is_user", [True, False], ids=["user", "application"])
def test_a_failure_is_noted_the_token_kept_and_the_error_repeated_for_5_s(
    airisk: World,
    settings: Any,
    mia: User,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    noted: tuple[str, int | None, str],
    for_user: type[AIRiskError],
    for_application: type[AIRiskError],
    is_user: bool,
) -> None:
    user, expected = (mia, for_user) if is_user else (None, for_application)
    give_token(user, ends_in=-60)
    trouble(airisk, settings, what)
    messages: list[str] = []
    for calls in (1, 1, 2):
        began = timezone.now()
        with pytest.raises(AIRiskError) as caught:
            credential(user)
        error, row = caught.value, stored(user)
        assert type(error) is expected
        assert row.access_token == "stored-token"
        assert row.lease is None
        assert (row.failure_kind, row.failure_status, row.failure_reason) == noted
        assert row.failure_count == calls
        assert row.failed_at is not None
        assert row.failing_since is not None
        assert (row.failed_at > began) == (messages == [] or calls == 2)
        assert (row.failing_since == row.failed_at) == (calls == 1)
        assert sum(seen.endpoint == "/api/oauth2" for seen in airisk.journal) == calls
        # What AIRisk's support asks for is in front of whoever reads the error.
        assert row.failure_trace_id in str(error)
        assert (row.failure_trace_id != "") == (what == "unknown client")
        if isinstance(error, ConnectionRequired):
            assert error.deployment == "default"
            assert error.connect_url == ("/airisk/connect/" if is_user else None)
            assert isinstance(error.__cause__, AIRiskRefused) == (noted[0] == "refused")
        messages.append(str(error))
        if len(messages) == 2:
            set_clock(monkeypatch, 6)
    if noted[0] == "refused":
        assert noted[2] in messages[0]


@committing
def test_after_a_failed_early_renewal_nobody_tries_for_a_while_then_longer(
    airisk: World, mia: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_token(mia, ends_in=290)
    airisk.switches.outage = True
    since = 0.0
    for failures, (seconds, pause) in enumerate([(0.0, 30), (40.0, 60), (120.0, 120)], start=1):
        # Just before it may be tried again, and then.
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
def test_the_pause_that_airisk_asks_for_is_kept(airisk: World, mia: User, monkeypatch: pytest.MonkeyPatch) -> None:
    give_token(mia, ends_in=200)
    airisk.switches.outage, airisk.switches.retry_after = True, 60
    for seconds, calls in ((0, 1), (58, 1), (62, 2)):
        set_clock(monkeypatch, seconds)
        assert credential(mia).token == "stored-token"
        assert len(airisk.journal) == calls


@pytest.mark.parametrize("how", ["reconnect", "renewal"])
def test_a_new_token_forgets_what_failed(airisk: World, mia: User, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    give_token(mia, ends_in=-60)
    airisk.switches.outage = True
    with pytest.raises(AIRiskUnavailable):
        credential(mia)
    airisk.switches.outage = False
    if how == "reconnect":
        store(mia.pk, "default", "user_42", TokenGrant(Secret("fresh"), None))
    else:
        set_clock(monkeypatch, 6)
    assert credential(mia).token == stored(mia).access_token != "stored-token"
    blank = AIRiskToken()
    assert all(getattr(stored(mia), name) == getattr(blank, name) for name in NO_FAILURE)


# Leases


@committing
def test_a_held_lease_is_waited_for_as_long_as_a_flow_takes(airisk: World, settings: Any, mia: User) -> None:
    """Its holder may have died; AIRisk gives a token to whoever asks, and what it gave is written."""
    set_option(settings, TIMEOUT=(5, 1))
    held = leases.lease_seconds(conf.deployment()) - 1
    give_token(mia, ends_in=-60, lease=uuid4(), lease_until=timezone.now() + timedelta(seconds=held))
    began = time.monotonic()
    assert renew_token(mia) is False
    assert not airisk.journal
    token = credential(mia).token
    assert time.monotonic() - began >= 1
    assert token == stored(mia).access_token != "stored-token"


@committing
@pytest.mark.parametrize("seconds", [-1, 95, 8 * 3600], ids=["lapsed", "of a queue", "of a wrong clock"])
def test_a_lease_no_renewal_can_have_holds_nobody(airisk: World, settings: Any, mia: User, seconds: float) -> None:
    set_option(settings, TIMEOUT=(5, 60))
    give_token(mia, ends_in=-60, lease=uuid4(), lease_until=timezone.now() + timedelta(seconds=seconds))
    began = time.monotonic()
    assert credential(mia).token == stored(mia).access_token != "stored-token"
    assert time.monotonic() - began < 60


@committing
@pytest.mark.parametrize("what", ["failed_at", "refused_anew_at", "retry_at", "last_used_at", "renewed_at"])
@pytest.mark.parametrize("ends_in", [-5, 100], ids=["ended", "ends soon"])
def test_a_time_8_hours_ahead_keeps_nobody_waiting(airisk: World, mia: User, what: str, ends_in: float) -> None:
    give_token(mia, ends_in=ends_in)
    AIRiskToken.objects.update(**{what: timezone.now() + timedelta(hours=8)})
    bearer = BearerPolicy(conf.deployment(), mia)
    if ends_in > 0:
        run(bearer.replacement(run(bearer.credential(BLOCKING)).token, BLOCKING))
    token = run(bearer.credential(BLOCKING)).token
    assert token == stored(mia).access_token != "stored-token"
    assert is_recent(stored(mia).renewed_at, timezone.now(), timedelta(minutes=1))


@committing
@pytest.mark.parametrize("life", [20, 30, 39])
def test_a_short_lived_token_is_renewed_early_too(airisk: World, mia: User, life: float) -> None:
    """So that nobody has to wait for it."""
    born = timezone.now() - timedelta(seconds=life * 0.8)
    give_token(mia, ends_in=life * 0.2, renewed_at=born)
    airisk.switches.outage = True
    assert credential(mia).token == "stored-token"
    assert stored(mia).failure_count == 1


@committing
@pytest.mark.parametrize("meanwhile", ["reconnected", "disconnected", "lapsed and taken over"])
def test_a_late_finisher_overwrites_nothing_newer_and_revives_nothing(airisk: World, mia: User, meanwhile: str) -> None:
    give_token(mia, ends_in=-60)
    airisk.switches.latency = 0.3
    asked = threading.Event()

    def note(**_kwargs: Any) -> None:
        asked.set()

    request_started.connect(note)
    with ThreadPoolExecutor(1) as pool, renewals_sent() as told:
        late = pool.submit(attempt, partial(credential, mia))
        assert asked.wait(60)
        if meanwhile == "disconnected":
            flow.disconnect(stored(mia))
        elif meanwhile == "reconnected":
            store(mia.pk, "default", "user_42", TokenGrant(Secret("fresh"), None))
        else:
            AIRiskToken.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
            credential(mia)
        newer = AIRiskToken.objects.first()
        answer = late.result()
    assert len(token_requests(airisk)) == (2 if meanwhile.startswith("lapsed") else 1)
    assert len(told) == (1 if meanwhile.startswith("lapsed") else 0)
    if newer is None:
        assert isinstance(answer, ConnectionRequired)
        assert not AIRiskToken.objects.exists()
    else:
        assert not isinstance(answer, AIRiskError)
        assert answer.token == newer.access_token == stored(mia).access_token


@pytest.mark.parametrize("crash", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_crash_gives_the_lease_up_and_keeps_the_token(mia: User, crash: type[BaseException]) -> None:
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


def test_a_renewal_that_somebody_else_has_just_finished_is_not_repeated_and_leaves_no_lease(
    airisk: World, mia: User
) -> None:
    token = give_token(mia, ends_in=60)
    faster = [timezone.now()]

    def execute(execute: Any, sql: str, *args: Any) -> Any:
        if faster and ("FOR UPDATE" in sql or 'SET "lease"' in sql):
            AIRiskToken.objects.filter(pk=token.pk).update(failed_at=faster.pop())
        return execute(sql, *args)

    with connection.execute_wrapper(execute):
        assert renew_token(mia) is False
    assert not faster
    assert stored(mia).lease is None
    assert not airisk.journal


def test_the_applications_first_token_is_the_deployments_own(airisk: World) -> None:
    token = run(Renewal(StoredToken(conf.deployment("second"), APPLICATION)).credential()).token
    assert (AIRiskToken.objects.get().deployment, AIRiskToken.objects.get().access_token) == ("second", token)


@committing
@pytest.mark.parametrize("ends_in", [-60, 60, 3600])
def test_a_host_with_a_wrong_key_replaces_nothing(airisk: World, settings: Any, mia: User, ends_in: float) -> None:
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


# Around the caller's transaction


class Undo(Exception):
    """Rolls a transaction back."""


@committing
def test_an_early_renewal_waits_for_the_commit_and_happens_once(airisk: World, mia: User) -> None:
    give_token(mia, ends_in=200)
    with suppress(Undo), transaction.atomic():
        credential(mia)
        raise Undo
    assert not airisk.journal
    with transaction.atomic():
        assert [credential(mia).token for _ in range(2)] == ["stored-token"] * 2
        assert not airisk.journal
    assert stored(mia).access_token != "stored-token"
    assert len(token_requests(airisk)) == 1


@committing
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("is_user", [True, False], ids=["user", "application"])
def test_a_transaction_uses_what_it_does_not_write(airisk: World, mia: User, is_user: bool, fails: bool) -> None:
    user = mia if is_user else None
    give_token(user, ends_in=-60)
    airisk.switches.refuse = fails
    with transaction.atomic():
        before = stored(user)
        with pytest.raises(AIRiskError) if fails else nullcontext():
            assert credential(user).token != "stored-token"
        inside = stored(user)
    after = stored(user)
    assert (inside.sealed, inside.failure_count, inside.lease) == (before.sealed, 0, None)
    assert (after.access_token == "stored-token", after.failure_count) == (fails, fails)


@committing
def test_the_first_application_token_needs_no_row(airisk: World) -> None:
    with transaction.atomic():
        token = credential().token
        assert credential().token == token
        assert not AIRiskToken.objects.exists()
    assert stored().access_token == token
    assert len(token_requests(airisk)) == 1


@committing
@pytest.mark.parametrize("fails", [False, True])
def test_what_a_rollback_undoes_is_not_asked_again(airisk: World, mia: User, fails: bool) -> None:
    give_token(mia, ends_in=-60)
    airisk.switches.refuse = fails
    answers = []
    for _call in range(3):
        with suppress(Undo), transaction.atomic():
            answers.append(attempt_here(partial(credential, mia)))
            raise Undo
    assert len([seen for seen in airisk.journal if seen.endpoint == "/api/oauth2"]) == 1
    assert stored(mia).failure_count == 0
    answers.append(attempt_here(partial(credential, mia)))
    assert len({str(getattr(answer, "token", answer)) for answer in answers}) == 1
    assert (stored(mia).access_token == "stored-token", stored(mia).failure_count) == (fails, fails)


@committing
def test_a_rollback_loses_no_note_of_a_useless_renewal(airisk: World, mia: User) -> None:
    give_token(mia)
    for _call in range(10):
        with suppress(Undo), transaction.atomic():
            bearer = BearerPolicy(conf.deployment(), mia)
            refused = run(bearer.credential(BLOCKING))
            another = run(bearer.replacement(refused.token, BLOCKING))
            if another is not None:
                run(bearer.note_replay(401, another, BLOCKING))
            raise Undo
        unwritten.write()
    assert len(token_requests(airisk)) == 1
    assert stored(mia).refused_anew_at is not None


@committing
def test_the_same_token_again_is_not_asked_for_anew(mia: User) -> None:
    give_token(mia)
    with responses.RequestsMock() as wire:
        silent_flow(wire, {"json": {"access_token": "stored-token"}})
        for _call in range(3):
            bearer = BearerPolicy(conf.deployment(), mia)
            assert run(bearer.replacement(run(bearer.credential(BLOCKING)).token, BLOCKING)) is None
        assert [call.request.method for call in wire.calls] == ["GET", "POST"]


@committing
def test_transactions_at_once_share_a_renewal(airisk: World, mia: User) -> None:
    give_token(mia, ends_in=-60)
    airisk.switches.latency = 0.2

    def call() -> str:
        with transaction.atomic():
            return str(credential(mia).token)

    assert set(in_threads(8, call)) == {str(stored(mia).access_token)}
    assert len(token_requests(airisk)) == 1


@committing
@on_postgresql_only
def test_transactions_that_want_each_others_token(airisk: World, mia: User) -> None:
    """Neither waits for what the other one holds until its end."""
    leo = User.objects.create_user("leo")
    AIRiskIdentity.objects.create(user=leo, userid="user_7")
    give_token(mia, ends_in=-60)
    give_token(leo, ends_in=-60, userid="user_7")
    turns, both_at_it = iter([(mia, leo), (leo, mia)]), threading.Barrier(2)

    def call() -> list[Secret]:
        first, second = next(turns)
        with transaction.atomic():
            tokens = [credential(first).token]
            both_at_it.wait(10)
            return [*tokens, credential(second).token]

    began = time.monotonic()
    answers = in_threads(2, call)
    assert time.monotonic() - began < 5
    assert not any(isinstance(answer, AIRiskError) for answer in answers)


@committing
@on_postgresql_only
def test_a_transaction_asks_for_no_second_connection(airisk: World, mia: User) -> None:
    give_token(mia, ends_in=-60)
    with transaction.atomic(), connection.cursor() as cursor:
        credential(mia)
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        assert cursor.fetchone() == (1,)


@committing
def test_receivers_run_after_the_callers_commit(airisk: World, mia: User) -> None:
    give_token(mia, ends_in=-60)
    seen: list[tuple[bool, str, int]] = []

    def receiver(**_given: Any) -> None:
        # What the caller has written can be written here, and the token is there.
        User.objects.filter(pk=mia.pk).update(last_name="receiver")
        seen.append((connection.in_atomic_block, str(stored(mia).access_token), threading.get_ident()))

    token_renewed.connect(receiver)
    with transaction.atomic():
        User.objects.filter(pk=mia.pk).update(last_name="view")
        token = credential(mia).token
        assert not seen
    assert token_renewed.disconnect(receiver)
    assert seen == [(False, str(token), threading.get_ident())]


@pytest.mark.parametrize("is_user", [True, False], ids=["user", "application"])
def test_where_no_other_connection_sees_the_row_the_callers_is_used(airisk: World, mia: User, is_user: bool) -> None:
    user = mia if is_user else None
    give_token(user, ends_in=-60)
    token = credential(user).token
    assert token == stored(user).access_token != "stored-token"
    assert renew_token(user) is True
    assert stored(user).access_token != token


@committing
@on_postgresql_only
def test_somebody_elses_lock_on_the_row_makes_nobody_wait(airisk: World, mia: User) -> None:
    give_token(mia, ends_in=200)
    with ThreadPoolExecutor(1) as pool, transaction.atomic():
        AIRiskToken.objects.select_for_update().get()
        access = pool.submit(attempt, partial(credential, mia)).result(timeout=5)
    assert not isinstance(access, AIRiskError)
    assert access.token == "stored-token"
    assert not airisk.journal


@committing
@pytest.mark.parametrize("error", [OperationalError, InterfaceError])
def test_a_database_error_while_claiming_early_is_logged_and_the_live_token_used(
    airisk: World, mia: User, caplog: pytest.LogCaptureFixture, error: type[Exception]
) -> None:
    give_token(mia, ends_in=200)

    def read_only(execute: Any, sql: str, *args: Any) -> Any:
        if sql.startswith("UPDATE"):
            raise error("the disk is full")
        return execute(sql, *args)

    with connection.execute_wrapper(read_only):
        assert credential(mia).token == "stored-token"
    assert "the disk is full" in caplog.text
    assert not airisk.journal


@committing
@pytest.mark.parametrize("statement", [1, 2], ids=["claiming", "saving"])
def test_a_database_that_cannot_write_costs_no_call(airisk: World, mia: User, statement: int) -> None:
    give_token(mia, ends_in=-60)
    passed = 0

    def locked(execute: Any, sql: str, *args: Any) -> Any:
        nonlocal passed
        passed += sql.startswith("UPDATE")
        if sql.startswith("UPDATE") and passed >= statement:
            raise OperationalError("database is locked")
        return execute(sql, *args)

    with connection.execute_wrapper(locked):
        tokens = {str(credential(mia).token) for _call in range(3)}
    assert len(token_requests(airisk)) == 1
    assert stored(mia).access_token == "stored-token"
    # Written by the next call that can.
    assert tokens == {str(credential(mia).token)} == {str(stored(mia).access_token)}


@committing
@on_postgresql_only
def test_a_closed_connection_is_opened_anew_by_itself(airisk: World, mia: User) -> None:
    give_token(mia)

    def call_once_closed() -> Secret:
        with connection.cursor() as cursor, suppress(OperationalError):
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        return credential(mia).token

    assert call_once_closed() == "stored-token"
    # A transaction is lost with its connection.
    with pytest.raises(OperationalError):
        transaction.atomic(call_once_closed)()


# Notes and tidings


@committing
def test_use_is_noted_once_an_hour_at_most(airisk: World, mia: User, monkeypatch: pytest.MonkeyPatch) -> None:
    give_token(mia, ends_in=86400)
    noted = [stored(mia).last_used_at]
    for minutes in (59, 61, 119, 123):
        set_clock(monkeypatch, minutes * 60)
        credential(mia)
        noted.append(stored(mia).last_used_at)
    assert noted[0] == noted[1] < noted[2] == noted[3] < noted[4]
    set_clock(monkeypatch, 5 * 3600)
    with transaction.atomic():
        # Not before the end: the row is not locked for as long as the caller's transaction lasts.
        credential(mia)
        assert stored(mia).last_used_at == noted[4]
    assert stored(mia).last_used_at > noted[4]


@committing
def test_signals_and_the_log_tell_what_became_of_a_token(
    airisk: World, mia: User, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    users = give_token(mia, ends_in=-60)
    with renewals_sent() as told, caplog.at_level(logging.INFO, "airisk_oauth.renewal"):
        credential()
        credential(mia)
        airisk.switches.refuse = True
        set_clock(monkeypatch, 3500)
        credential(mia)
    [(_name, failed)] = [each for each in told if each[0] == "failed"]
    error = failed.pop("error")
    assert isinstance(error, AIRiskRefused)
    assert told == [
        ("obtained", {"sender": AIRiskToken, "user_id": None, "deployment": "default"}),
        ("renewed", {"sender": AIRiskToken, "user_id": mia.pk, "deployment": "default"}),
        ("failed", {"sender": AIRiskToken, "user_id": mia.pk, "deployment": "default"}),
    ]
    failed_early = f"AIRisk token {users.pk} stays in use, because its early renewal failed: The stored token "
    failed_early += "could not be renewed."
    assert [(record.event, record.getMessage()) for record in caplog.records] == [  # type: ignore[attr-defined]
        ("token.obtained", f"AIRisk token {stored().pk} of deployment default was renewed"),
        ("token.renewed", f"AIRisk token {users.pk} of deployment default was renewed"),
        ("token.renewal_failed", f"AIRisk token {users.pk} of deployment default was not renewed: {error}"),
        ("token.early_renewal_failed", f"{failed_early} {error}"),
    ]


def test_a_receiver_that_raises_undoes_nothing(airisk: World, mia: User, caplog: pytest.LogCaptureFixture) -> None:
    def raising(**carried: Any) -> None:
        raise RuntimeError("of the receiver")

    token_renewed.connect(raising)
    try:
        give_token(mia, ends_in=-60)
        assert credential(mia).token == stored(mia).access_token != "stored-token"
    finally:
        token_renewed.disconnect(raising)
    assert "of the receiver" in caplog.text


@committing
@pytest.mark.parametrize(
    "answer",
    [
        {"json": {"access_token": "token-canary", "expires_in": 3600}},
        {"json": {"access_token": "token-canary", "expiration": "token-canary"}},
        {"status": 400, "body": "Invalid Code code-canary", "content_type": "text/plain"},
        {"status": 401, "json": {"title": "secret-1", "traceId": "code-canary"}},
        {"status": 500, "body": "token-canary"},
        {"body": requests.ConnectionError("secret-1")},
    ],
)
def test_no_log_record_holds_a_token_a_code_a_state_or_a_secret(
    mia: User, caplog: pytest.LogCaptureFixture, answer: dict[str, Any]
) -> None:
    caplog.set_level(logging.DEBUG)
    give_token(None, ends_in=200)
    give_token(mia, ends_in=-60)
    with responses.RequestsMock() as wire:
        states = silent_flow(wire, answer)
        credential()
        attempt(partial(credential, mia))
    assert len(states) == 2
    ours = [record for record in caplog.records if record.name.startswith("airisk_oauth")]
    assert ours
    text = "\n".join(logging.Formatter().format(record) for record in ours)
    for canary in ("stored-token", "token-canary", "code-canary", "secret-1", *states):
        assert canary not in text


# What the pages ask


@pytest.mark.parametrize(
    ("values", "silent", "is_connected"),
    [
        ({"ends_in": 3600}, True, True),
        ({"ends_in": -60}, True, True),
        ({"ends_in": -60}, False, False),
        ({"ends_in": 60}, False, True),
        ({"ends_in": -60, "failure_kind": "unavailable"}, True, True),
        ({"ends_in": -60, "failure_kind": "refused", "failure_status": 400}, True, False),
        ({"ends_in": -60, "failure_kind": "person"}, True, False),
        ({"ends_in": 60, "failure_kind": "person"}, True, True),
        ({"userid": "user_7"}, True, False),
        (None, True, False),
    ],
)
def test_check_tells_without_a_call_whether_a_person_has_to_connect(
    airisk: World, settings: Any, mia: User, values: dict[str, Any] | None, silent: bool, is_connected: bool
) -> None:
    set_option(settings, SILENT_RENEWAL=silent)
    if values is not None:
        give_token(mia, **values)
    if is_connected:
        assert stored_token(mia).check() == stored(mia)
    else:
        with pytest.raises(ConnectionRequired) as caught:
            stored_token(mia).check()
        assert caught.value.connect_url == "/airisk/connect/"
    assert not airisk.journal
