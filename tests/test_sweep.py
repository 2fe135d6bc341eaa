"""Many tokens renewed in one go: each once, by one host, and no result is lost and no lease kept, whatever happens."""

import os
import signal
import threading
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from itertools import count
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.db import InterfaceError, OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from airisk_oauth.models import AIRiskToken
from airisk_oauth.oauth.messages import Secret, TokenGrant
from airisk_oauth.sandbox.world import World
from airisk_oauth.tokens import sweep
from airisk_oauth.tokens.outcomes import store
from airisk_oauth.tokens.report import AIRISK_DOWN, INTERRUPTED, RENEWED_ELSEWHERE, Report
from tests.support.browsing import at_each_request
from tests.support.clock import wait_until
from tests.support.database import committing, database_away, not_on_sqlite
from tests.support.options import set_option, trouble
from tests.support.people import connected_users, renewed_of, token_requests
from tests.support.signals import renewals_sent
from tests.support.sweeps import answering, counted, failing_at, just_before, run, swept
from tests.support.threads import attempt, in_threads

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("save_soon")]
ROWS_CAN_BE_LOCKED = connection.vendor != "sqlite"


def assert_nothing_is_leased() -> None:
    assert not AIRiskToken.objects.exclude(lease=None).exists()


@pytest.mark.parametrize(
    ("what", "word", "kind"),
    [
        ("refuse", "refused", "refused"),
        ("unknown client", "refused", "refused"),
        ("login_page", "refused", "person"),
        ("outage", "unavailable", "unavailable"),
        ("malformed", "unavailable", "invalid"),
    ],
)
def test_failure_is_counted_and_the_token_kept(airisk: World, settings: Any, what: str, word: str, kind: str) -> None:
    tokens = connected_users(2)
    trouble(airisk, settings, what)
    seen: list[str] = []
    report = swept(progress=seen.append)
    assert counted(report) == {word: 2}
    assert seen == [word] * 2
    assert not report.is_clean
    assert renewed_of(tokens) == [False, False]
    noted = AIRiskToken.objects.values_list("failure_kind", "failure_count", "lease")
    assert list(noted) == [(kind, 1, None)] * 2
    # Their failure pauses them.
    assert run() == {}


# Broken off


def test_sweep_saves_grants_when_the_site_fails(airisk: World, settings: Any) -> None:
    set_option(settings, USERID="tests.support.resolvers.by_name")
    tokens = connected_users(20)
    User.objects.filter(username=tokens[15].userid).update(last_name="Broken")
    with pytest.raises(InterfaceError, match="the directory is down"):
        run(workers=2)
    assert 1 <= len(token_requests(airisk)) == sum(renewed_of(tokens)) < 20
    assert_nothing_is_leased()


def test_sweep_saves_other_calls_when_one_crashes() -> None:
    def crashes(number: int) -> bool:
        if number == 2:
            raise LookupError("a fault of our own")
        return False

    tokens = connected_users(12)
    with failing_at(crashes), pytest.raises(LookupError, match="a fault of our own"):
        run(workers=2)
    assert sum(renewed_of(tokens)) >= 2
    assert_nothing_is_leased()


class TimeIsUp(BaseException):
    """A job queue's time limit: raised by a signal's handler, wherever the main thread happens to be."""


@pytest.mark.parametrize("is_done", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("number", range(1, 25))
def test_sweep_struck_at_any_query_loses_nothing(number: int, is_done: bool) -> None:
    """Whichever statement a signal's handler interrupts, every grant is saved and every lease released.

    How many statements there are depends on how many results come together: the last numbers may strike none.
    """
    tokens = connected_users(12)
    statements = count(1)

    def strike(execute: Any, *args: Any) -> Any:
        is_struck = next(statements) == number
        result = execute(*args) if is_done or not is_struck else None
        if is_struck:
            raise TimeIsUp
        return result

    with answering(lambda _userid: 302) as asked, connection.execute_wrapper(strike), suppress(TimeIsUp):
        run(workers=2)
    assert sum(renewed_of(tokens)) == len(asked)
    assert_nothing_is_leased()


def test_time_limit_while_gathering_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = connected_users(12)
    monkeypatch.setattr(sweep, "GATHER", 5)

    def strike(*_args: object) -> None:
        raise TimeIsUp

    struck = threading.Event()
    begun = []

    def fails(number: int) -> bool:
        begun.append(number)
        if number == 1:
            # The main thread has the first one's result by then, and waits for more.
            time.sleep(0.5)
            os.kill(os.getpid(), signal.SIGUSR1)
            struck.set()
        elif number == 2:
            struck.wait()
        return False

    before = signal.signal(signal.SIGUSR1, strike)
    with failing_at(fails), pytest.raises(TimeIsUp):
        run(workers=2)
    signal.signal(signal.SIGUSR1, before)
    assert 3 <= sum(renewed_of(tokens)) == len(begun) < 12
    assert_nothing_is_leased()


@committing
@pytest.mark.parametrize(
    "what",
    [
        'SELECT "airisk_oauth_airisktoken"',
        'UPDATE "airisk_oauth_airisktoken" SET "lease"',
        'SELECT "airisk_oauth_airiskidentity"',
        'UPDATE "airisk_oauth_airisktoken" SET "sealed"',
        'UPDATE "airisk_oauth_airisktoken" SET "failed_at"',
    ],
)
def test_database_restart_costs_no_second_request(airisk: World, caplog: pytest.LogCaptureFixture, what: str) -> None:
    tokens = connected_users(12)
    airisk.switches.refuse = "failed_at" in what
    with database_away(what, 2):
        assert run(workers=3) == {"refused" if airisk.switches.refuse else "renewed": 12}
    assert "waits for the database: the database system is starting up" in caplog.text
    assert Counter(seen.values["userid"] for seen in airisk.journal if seen.endpoint == "/api/oauth2") == {
        each.userid: 1 for each in tokens
    }
    assert set(AIRiskToken.objects.values_list("failure_count", "lease")) == {(int(airisk.switches.refuse), None)}


@committing
def test_sweep_ends_if_the_database_stays_away(airisk: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "PATIENCE", 0.2)
    tokens = connected_users(6)
    with database_away("UPDATE", float("inf")), pytest.raises(OperationalError, match="starting up"):
        run(workers=3)
    assert renewed_of(tokens) == [False] * 6


# Given up, and stopped


@pytest.mark.parametrize("workers", [1, 8])
def test_sweep_gives_up_after_five_failures(airisk: World, workers: int) -> None:
    connected_users(40)
    airisk.switches.outage = True
    report = swept(workers=workers)
    tried = report.counts["unavailable"]
    # The other workers may have begun with a token each.
    assert 5 <= tried == len(airisk.journal) <= 5 + (workers - 1)
    assert counted(report) == {"unavailable": tried, "skipped": 40 - tried}
    assert report.reasons == {AIRISK_DOWN: 40 - tried}
    assert not report.is_clean
    assert_nothing_is_leased()


def test_sweep_goes_on_while_some_calls_succeed() -> None:
    connected_users(24)
    with failing_at(lambda number: number % 3 == 0):
        assert run(workers=1) == {"renewed": 16, "unavailable": 8}


def test_late_success_leaves_the_reason_as_it_was() -> None:
    connected_users(12)
    with failing_at(lambda number: number > 0, pause=0.5):
        report = swept(workers=2)
    assert counted(report) == {"renewed": 1, "unavailable": 5, "skipped": 6}
    assert report.reasons == {AIRISK_DOWN: 6}


def test_stopped_sweep_saves_what_is_in_flight(airisk: World) -> None:
    tokens = connected_users(20)
    stop = threading.Event()
    report = swept(workers=2, stop=stop, progress=lambda _outcome: stop.set())
    renewed = report.counts["renewed"]
    assert 1 <= renewed == len(token_requests(airisk)) == sum(renewed_of(tokens)) <= 8
    assert report.reasons == {INTERRUPTED: 20 - renewed}
    assert not report.is_clean
    assert_nothing_is_leased()


def test_stopped_sweep_releases_what_is_queued(airisk: World) -> None:
    """A slow AIRisk and a queue must not outlast the seconds that a supervisor waits after SIGTERM."""
    connected_users(20)
    airisk.switches.latency = 0.4
    stop = threading.Event()
    report = swept(workers=1, stop=stop, progress=lambda _outcome: stop.set())
    assert report.counts["renewed"] <= 2
    assert not report.is_clean
    assert_nothing_is_leased()


def test_sweep_stopped_at_once_asks_nothing(airisk: World) -> None:
    connected_users(2)
    stop = threading.Event()
    stop.set()
    assert swept(stop=stop).reasons == {INTERRUPTED: 2}
    assert not airisk.journal


# Beside others


@committing
def test_two_sweeps_never_renew_a_token_twice(airisk: World) -> None:
    tokens = connected_users(40)
    airisk.switches.latency = 0.01
    reports = in_threads(2, lambda: swept(workers=4))
    asked = Counter(seen.values["userid"] for seen in token_requests(airisk))
    assert asked == {token.userid: 1 for token in tokens}
    assert sum(report.counts["renewed"] for report in reports if isinstance(report, Report)) == 40
    assert all(isinstance(report, Report) and report.is_clean for report in reports)
    assert all(renewed_of(tokens))
    assert_nothing_is_leased()


def test_token_renewed_just_before_is_not_claimed(airisk: World) -> None:
    tokens = connected_users(3)
    with just_before(
        " FOR UPDATE" if ROWS_CAN_BE_LOCKED else "UPDATE ",
        tokens[1:2],
        renewed_at=timezone.now() + timedelta(seconds=8),
    ):
        report = swept()
    assert counted(report) == {"renewed": 2, "skipped": 1}
    assert report.is_clean
    assert renewed_of(tokens) == [True, False, True]
    assert len(token_requests(airisk)) == 2


@pytest.mark.parametrize(("fails", "word"), [(False, "renewed"), (True, "unavailable")])
def test_token_that_lost_its_lease_is_not_saved(airisk: World, fails: bool, word: str) -> None:
    tokens = connected_users(4)
    airisk.switches.outage = fails
    with just_before('SET "failed_at"' if fails else 'SET "sealed"', tokens[1:2], lease=None), renewals_sent() as sent:
        report = swept()
    assert counted(report) == {word: 3, "skipped": 1}
    assert report.reasons == {RENEWED_ELSEWHERE: 1}
    assert len(sent) == 3
    assert renewed_of(tokens) == [not fails, False, not fails, not fails]
    assert [row.failure_count for row in AIRiskToken.objects.order_by("pk")] == [fails, 0, fails, fails]


def test_sweep_overwrites_no_new_connection(airisk: World) -> None:
    tokens = connected_users(2)
    airisk.switches.latency = 0.15

    def reconnect(_outcome: str) -> None:
        # The second one is in flight by now, and leased.
        store(tokens[1].user_id, "default", tokens[1].userid, TokenGrant(Secret("fresh"), None))

    report = swept(workers=1, progress=reconnect)
    assert report.reasons == {RENEWED_ELSEWHERE: 1}
    assert AIRiskToken.objects.get(user=tokens[1].user_id).access_token == "fresh"


def test_sweep_drops_tokens_that_callers_claim(airisk: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "LOOK_AGAIN", 0)
    tokens = connected_users(6)
    airisk.switches.latency = 0.05

    def take_over(_outcome: str) -> None:
        AIRiskToken.objects.filter(pk=tokens[5].pk).update(lease=uuid4())

    report = swept(workers=1, progress=take_over)
    assert (counted(report), report.reasons) == ({"renewed": 5, "skipped": 1}, {RENEWED_ELSEWHERE: 1})
    assert report.is_clean
    assert tokens[5].userid not in {seen.values.get("userid") for seen in airisk.journal}


@committing
@not_on_sqlite
def test_sweep_holds_no_row_while_it_waits(airisk: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction of the site holds one row until the others are saved: the two would wait for each other."""
    monkeypatch.setattr(sweep, "GATHER", 5)
    tokens = connected_users(3)
    holds = threading.Event()

    def hold() -> None:
        with transaction.atomic():
            AIRiskToken.objects.filter(pk=tokens[0].pk).update(last_used_at=timezone.now())
            holds.set()
            wait_until(lambda: renewed_of(tokens[1:]) == [True, True])

    with ThreadPoolExecutor(1) as pool:
        begun: list[Future[Any]] = []

        def begin() -> None:
            if not begun:
                begun.append(pool.submit(attempt, hold))
            holds.wait()

        with at_each_request("/api/oauth2/Token", begin):
            assert run(workers=3) == {"renewed": 3}
        begun[0].result()
    assert renewed_of(tokens) == [True] * 3


# What it costs


def test_sweep_takes_one_query_for_ten_tokens(airisk: World, monkeypatch: pytest.MonkeyPatch) -> None:
    # On a busy machine, fewer results come in the usual time.
    monkeypatch.setattr(sweep, "GATHER", 1)
    tokens = connected_users(500)
    with CaptureQueriesContext(connection) as queries:
        assert run(workers=32) == {"renewed": 500}
    assert all(renewed_of(tokens))
    about_rows = [query for query in queries if query["sql"].startswith(("SELECT", "UPDATE"))]
    # On MySQL and MariaDB each of the 8 pages is read before it is locked.
    assert len(about_rows) <= 0.1 * len(tokens) + (8 if connection.vendor == "mysql" else 0)
