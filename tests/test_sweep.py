"""Many tokens renewed in one go: each once, by one host, and none that should be left alone."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import pytest
import responses
from django.contrib.auth.models import Group, User
from django.db import InterfaceError, OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from airisk_oauth import conf
from airisk_oauth.models import AIRiskIdentity, AIRiskToken
from airisk_oauth.oauth.messages import Secret, TokenGrant
from airisk_oauth.sandbox.world import World
from airisk_oauth.tokens import sweep
from airisk_oauth.tokens.outcomes import store
from airisk_oauth.tokens.report import (
    AIRISK_DOWN,
    CLIENT_REJECTED,
    DEACTIVATED,
    IDENTITY_CHANGED,
    INTERRUPTED,
    LEASED_ELSEWHERE,
    OTHER_ADDRESS,
    RENEWED_ELSEWHERE,
    UNREADABLE,
    UNRESOLVED,
    Report,
    Trouble,
)
from airisk_oauth.tokens.sweep import Sweep
from tests.support.browsing import at_each_request
from tests.support.clock import set_clock, wait_until
from tests.support.database import committing, database_away, on_postgresql_only
from tests.support.options import set_option, trouble
from tests.support.people import connected_users, give_token, renewed_of, token_requests
from tests.support.signals import renewals_sent
from tests.support.threads import attempt, in_threads
from tests.support.wire import BASE_URL

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("save_soon")]
ROWS_CAN_BE_LOCKED = connection.vendor != "sqlite"
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
OLD = datetime(2026, 1, 1, tzinfo=UTC)


def run(alias: str = "default", **options: Any) -> dict[str, int]:
    """Sweep, and return what was counted, noughts left out."""
    return counted(Sweep(conf.deployment(alias), **options).run())


def counted(report: Report) -> dict[str, int]:
    assert report.counts["skipped"] == report.reasons.total()
    return dict(+report.counts)


# Which tokens


@pytest.mark.parametrize("within", [timedelta(0), timedelta(minutes=10), 2 * HOUR])
def test_within_reaches_to_the_moment(airisk: World, monkeypatch: pytest.MonkeyPatch, within: timedelta) -> None:
    now = timezone.now()
    monkeypatch.setattr(timezone, "now", lambda: now)
    ends = [now - DAY, now + within, now + within + timedelta(milliseconds=1)]
    tokens = [connected_users(1, expires_at=end)[0] for end in ends]
    assert run(within=within) == {"renewed": 2}
    assert renewed_of(tokens) == [True, True, False]


@pytest.mark.parametrize(
    ("values", "by_within", "by_all"),
    [
        ({}, True, True),
        ({"ends_in": 3600}, False, True),
        ({"ends_in": None}, False, True),
        ({"last_used_at": -29 * DAY}, True, True),
        ({"last_used_at": -31 * DAY}, False, True),
        ({"retry_at": HOUR}, False, True),
        ({"retry_at": -HOUR}, True, True),
        # Whatever was renewed since the sweep began.
        ({"renewed_at": timedelta(seconds=8)}, False, False),
        # The application's row before its first token.
        ({"is_empty": True}, False, False),
    ],
)
@pytest.mark.parametrize("is_application", [False, True], ids=["user", "application"])
def test_what_is_idle_cooling_or_endless_is_left_alone_but_not_with_all(
    airisk: World, mia: User, values: dict[str, Any], by_within: bool, by_all: bool, is_application: bool
) -> None:
    now = timezone.now()
    moments = {name: now + value if isinstance(value, timedelta) else value for name, value in values.items()}
    given: dict[str, Any] = {"ends_in": 60, **moments}
    is_empty = given.pop("is_empty", False)
    token = give_token(None if is_application else mia, **given)
    if is_empty:
        AIRiskToken.objects.filter(pk=token.pk).update(sealed="")
    for within, expected in ((timedelta(minutes=10), by_within), (None, by_all and not by_within)):
        this = Sweep(conf.deployment(), within=within)
        assert this.total() == expected
        assert counted(this.run()) == ({"renewed": 1} if expected else {})
        if expected and within:
            break
    assert len(token_requests(airisk)) == (by_within or by_all)


def test_renew_unused_for_and_silent_renewal_decide_too(airisk: World, settings: Any) -> None:
    connected_users(1, last_used_at=timezone.now() - 3 * DAY)
    for option, expected in (({"RENEW_UNUSED_FOR": 2}, {}), ({"SILENT_RENEWAL": False}, {}), ({}, {"renewed": 1})):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(settings.AIRISK_OAUTH, "default", {**settings.AIRISK_OAUTH["default"], **option})
            assert run() == expected


def test_one_deployment_one_user_some_rows_or_the_most_pressing_few(airisk: World) -> None:
    late, soon, ended = (connected_users(1, ends_in=ends)[0] for ends in (60, 30, -60))
    [other] = connected_users(1, "second")
    tokens = [late, soon, ended, other]
    assert run("second") == {"renewed": 1}
    assert renewed_of(tokens) == [False, False, False, True]
    assert run(limit=1) == {"renewed": 1}
    assert renewed_of(tokens) == [False, False, True, True]
    assert run(user_id=late.user_id) == {"renewed": 1}
    assert renewed_of(tokens) == [True, False, True, True]
    assert run(pks=[late.pk]) == {}
    assert run(pks=[late.pk], within=None, limit=5) == run(pks=[soon.pk]) == {"renewed": 1}
    assert renewed_of(tokens) == [True, True, True, True]


@pytest.mark.parametrize("within", [timedelta(minutes=10), None])
@pytest.mark.parametrize("workers", [2, 7])
def test_every_token_is_renewed_once_however_short_a_life_it_gets(
    airisk: World, within: timedelta | None, workers: int
) -> None:
    airisk.switches.token_life = 60
    tokens = connected_users(12, ends_in=-60) + connected_users(3, ends_in=-30)
    seen: list[str] = []
    report = Sweep(conf.deployment(), within=within, workers=workers).run(seen.append)
    assert counted(report) == {"renewed": 15}
    assert report.is_clean
    assert seen == ["renewed"] * 15
    assert all(renewed_of(tokens))
    assert Counter(seen.values["userid"] for seen in token_requests(airisk)) == {each.userid: 1 for each in tokens}


# What becomes of them


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
def test_a_failure_is_counted_and_noted_and_the_token_kept(
    airisk: World, settings: Any, what: str, word: str, kind: str
) -> None:
    tokens = connected_users(2)
    trouble(airisk, settings, what)
    seen: list[str] = []
    report = Sweep(conf.deployment()).run(seen.append)
    assert counted(report) == {word: 2}
    assert seen == [word] * 2
    assert not report.is_clean
    assert renewed_of(tokens) == [False, False]
    noted = AIRiskToken.objects.values_list("failure_kind", "failure_count", "lease")
    assert list(noted) == [(kind, 1, None)] * 2
    # They cool down now.
    assert run() == {}


def _remapped(token: AIRiskToken) -> None:
    AIRiskIdentity.objects.filter(user=token.user_id).update(userid="user_7")


def _unmapped(token: AIRiskToken) -> None:
    AIRiskIdentity.objects.filter(user=token.user_id).delete()


def _unreadable(token: AIRiskToken) -> None:
    AIRiskToken.objects.filter(pk=token.pk).update(sealed="sealed with a key that is gone")


def _moved(token: AIRiskToken) -> None:
    AIRiskToken.objects.filter(pk=token.pk).update(origin="https://elsewhere.example:443")


def _held(token: AIRiskToken) -> None:
    AIRiskToken.objects.filter(pk=token.pk).update(lease=uuid4(), lease_until=timezone.now() + timedelta(minutes=1))


@pytest.mark.parametrize(
    ("change", "reason", "is_clean"),
    [
        (_remapped, IDENTITY_CHANGED, False),
        (_unmapped, IDENTITY_CHANGED, False),
        (_unreadable, UNREADABLE, False),
        (_moved, OTHER_ADDRESS, False),
        (_held, LEASED_ELSEWHERE, True),
    ],
)
@pytest.mark.parametrize("within", [timedelta(minutes=10), None])
def test_a_token_that_must_not_be_renewed_is_skipped_with_the_reason(
    airisk: World, change: Callable[[AIRiskToken], None], reason: str, is_clean: bool, within: timedelta | None
) -> None:
    tokens = connected_users(3)
    AIRiskToken.objects.filter(pk=tokens[1].pk).update(failure_kind="invalid", failure_count=2, failing_since=OLD)
    change(tokens[1])
    sealed = AIRiskToken.objects.values_list("sealed", "lease").get(user=tokens[1].user_id)
    seen: list[str] = []
    report = Sweep(conf.deployment(), within=within).run(seen.append)
    assert counted(report) == Counter(seen) == {"renewed": 2, "skipped": 1}
    assert report.reasons == {reason: 1}
    assert report.is_clean == is_clean
    assert report.needs_person == ([] if is_clean else [Trouble(tokens[1].pk, tokens[1].user_id, "default", reason)])
    assert AIRiskToken.objects.values_list("sealed", "lease").get(user=tokens[1].user_id) == sealed
    assert len(token_requests(airisk)) == 2
    # It is told once; and when it is put right, nothing stands in the way.
    again = Sweep(conf.deployment(), within=timedelta(minutes=10)).run()
    assert (again.reasons, again.is_clean, again.needs_person) == ({reason: 1}, True, [])
    AIRiskToken.objects.filter(pk=tokens[1].pk).update(sealed=tokens[1].sealed, lease_until=None, origin="")
    AIRiskIdentity.objects.update_or_create(user=tokens[1].user, defaults={"userid": tokens[1].userid})
    assert run() == {"renewed": 1}


def test_a_resolver_without_many_is_asked_for_each_user(airisk: World, settings: Any) -> None:
    set_option(settings, USERID="tests.support.resolvers.by_name")
    tokens = connected_users(3)
    AIRiskIdentity.objects.all().delete()
    User.objects.filter(username=tokens[0].userid).update(last_name="Nobody")
    assert run() == {"renewed": 2, "skipped": 1}
    assert renewed_of(tokens)[1:] == [True, True]


@pytest.mark.parametrize("fault", ["Wrong", "Faulty"])
def test_a_userid_that_fails_for_one_keeps_nobody_elses_token_from_being_renewed(
    fault: str, airisk: World, settings: Any
) -> None:
    set_option(settings, USERID="tests.support.resolvers.by_name")
    tokens = connected_users(12)
    User.objects.filter(username=tokens[2].userid).update(last_name=fault)
    report = Sweep(conf.deployment(), workers=2).run()
    assert counted(report) == {"renewed": 11, "skipped": 1}
    assert report.reasons == {UNRESOLVED: 1}
    assert not report.is_clean


def test_broken_off_by_the_site_it_saves_what_airisk_granted_and_holds_no_token(airisk: World, settings: Any) -> None:
    set_option(settings, USERID="tests.support.resolvers.by_name")
    tokens = connected_users(20)
    User.objects.filter(username=tokens[15].userid).update(last_name="Broken")
    with pytest.raises(InterfaceError, match="the directory is down"):
        run(workers=2)
    assert 1 <= len(token_requests(airisk)) == sum(renewed_of(tokens)) < 20
    assert not AIRiskToken.objects.exclude(lease=None).exists()


def test_broken_off_by_one_call_it_saves_what_the_others_brought_and_holds_no_token() -> None:
    def breaks_third(number: int) -> bool:
        if number == 2:
            raise LookupError("a fault of our own")
        return False

    tokens = connected_users(12)
    with failing_at(breaks_third), pytest.raises(LookupError, match="a fault of our own"):
        run(workers=2)
    assert sum(renewed_of(tokens)) >= 2
    assert not AIRiskToken.objects.exclude(lease=None).exists()


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
def test_a_database_that_goes_away_for_a_moment_costs_no_token_and_no_second_request(
    airisk: World, caplog: pytest.LogCaptureFixture, what: str
) -> None:
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
def test_a_database_that_stays_away_ends_the_sweep_and_no_token(airisk: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "PATIENCE", 0.2)
    tokens = connected_users(6)
    with database_away("UPDATE", float("inf")), pytest.raises(OperationalError, match="starting up"):
        run(workers=3)
    assert renewed_of(tokens) == [False] * 6


@contextmanager
def just_before(what: str, tokens: list[AIRiskToken], **values: Any) -> Iterator[None]:
    """Change these rows, once, just before the first statement that has this in it, as another process might."""
    waiting = [values]

    def execute_later(execute: Any, sql: str, *args: Any) -> Any:
        if waiting and what in sql:
            AIRiskToken.objects.filter(userid__in=[token.userid for token in tokens]).update(**waiting.pop())
        return execute(sql, *args)

    with connection.execute_wrapper(execute_later):
        yield
    assert not waiting


def test_a_token_that_somebody_renews_before_it_is_claimed_is_left_to_them(airisk: World) -> None:
    tokens = connected_users(3)
    with just_before(
        " FOR UPDATE" if ROWS_CAN_BE_LOCKED else "UPDATE ",
        tokens[1:2],
        renewed_at=timezone.now() + timedelta(seconds=8),
    ):
        report = Sweep(conf.deployment()).run()
    assert counted(report) == {"renewed": 2, "skipped": 1}
    assert report.is_clean
    assert renewed_of(tokens) == [True, False, True]
    assert len(token_requests(airisk)) == 2


@pytest.mark.parametrize(("fails", "word"), [(False, "renewed"), (True, "unavailable")])
def test_one_that_lost_its_lease_is_not_saved_and_the_others_of_its_batch_are(
    airisk: World, fails: bool, word: str
) -> None:
    tokens = connected_users(4)
    airisk.switches.outage = fails
    with just_before('SET "failed_at"' if fails else 'SET "sealed"', tokens[1:2], lease=None), renewals_sent() as told:
        report = Sweep(conf.deployment()).run()
    assert counted(report) == {word: 3, "skipped": 1}
    assert report.reasons == {RENEWED_ELSEWHERE: 1}
    assert len(told) == 3
    assert renewed_of(tokens) == [not fails, False, not fails, not fails]
    assert [row.failure_count for row in AIRiskToken.objects.order_by("pk")] == [fails, 0, fails, fails]


def test_what_a_person_brings_meanwhile_is_not_overwritten(airisk: World) -> None:
    tokens = connected_users(2)
    airisk.switches.latency = 0.15

    def reconnect(_what: str) -> None:
        # The second one is under way by now, and holds a lease.
        store(tokens[1].user_id, "default", tokens[1].userid, TokenGrant(Secret("fresh"), None))

    report = Sweep(conf.deployment(), workers=1).run(reconnect)
    assert report.reasons == {RENEWED_ELSEWHERE: 1}
    assert AIRiskToken.objects.get(user=tokens[1].user_id).access_token == "fresh"


@committing
def test_two_sweeps_at_once_never_renew_a_token_twice(airisk: World) -> None:
    tokens = connected_users(40)
    airisk.switches.latency = 0.01
    reports = in_threads(2, lambda: Sweep(conf.deployment(), workers=4).run())
    asked = Counter(seen.values["userid"] for seen in token_requests(airisk))
    assert asked == {token.userid: 1 for token in tokens}
    assert sum(report.counts["renewed"] for report in reports if isinstance(report, Report)) == 40
    assert all(isinstance(report, Report) and report.is_clean for report in reports)
    assert all(renewed_of(tokens))
    assert not AIRiskToken.objects.exclude(lease=None).exists()


# When to stop


@pytest.mark.parametrize("workers", [1, 4])
def test_a_deployment_that_is_down_is_left_alone_after_five_failures(airisk: World, workers: int) -> None:
    connected_users(40)
    airisk.switches.outage = True
    report = Sweep(conf.deployment(), workers=workers).run()
    tried = report.counts["unavailable"]
    assert 5 <= tried == len(airisk.journal) <= 5 + (sweep.PAGE + sweep.RESERVE) * workers
    assert counted(report) == {"unavailable": tried, "skipped": 40 - tried}
    assert report.reasons == {AIRISK_DOWN: 40 - tried}
    assert not report.is_clean
    assert not AIRiskToken.objects.exclude(lease=None).exists()


def test_one_that_does_not_accept_the_site_is_left_alone_and_its_tokens_with_it(airisk: World, settings: Any) -> None:
    connected_users(40)
    trouble(airisk, settings, "unknown client")
    report = Sweep(conf.deployment(), workers=1).run()
    tried = report.counts["refused"]
    # Once for the application, whose token depends on no user.
    assert 10 <= tried == len(airisk.journal) - 1 <= 10 + 2 * (sweep.PAGE + sweep.RESERVE)
    assert report.client_refused
    assert report.reasons == {CLIENT_REJECTED: 40 - tried}
    assert AIRiskToken.objects.filter(failure_count=0).count() == 40 - tried


def test_users_whom_airisk_does_not_know_keep_nobody_else_from_a_renewal(airisk: World) -> None:
    tokens = connected_users(12)
    for token in tokens[:8]:
        token.userid = f"unknown_{token.pk}"
        token.access_token = "stored-token"
        token.save()
        AIRiskIdentity.objects.filter(user=token.user).update(userid=token.userid)
    assert run(workers=1) == {"refused": 8, "renewed": 4}


@contextmanager
def failing_at(fails: Callable[[int], bool], pause: float = 0) -> Iterator[None]:
    """Let AIRisk be down for those authorizations, numbered from 0; the others take a moment."""
    numbers = count()

    def authorize(request: Any) -> tuple[int, dict[str, str], str]:
        if fails(next(numbers)):
            return 503, {}, ""
        time.sleep(pause)
        query = urlencode({"code": "code", "state": request.params["state"]})
        return 302, {"Location": f"https://app.example.com/airisk/callback/?{query}"}, ""

    with responses.RequestsMock() as wire:
        wire.add_callback(responses.GET, f"{BASE_URL}/api/oauth2", authorize)
        wire.post(f"{BASE_URL}/api/oauth2/Token", json={"access_token": "renewed"})
        yield


def test_one_that_answers_in_between_is_not_given_up() -> None:
    connected_users(24)
    with failing_at(lambda number: number % 3 == 0):
        assert run(workers=1) == {"renewed": 16, "unavailable": 8}


def test_what_is_left_alone_is_reported_so_though_the_last_one_under_way_succeeds() -> None:
    connected_users(12)
    with failing_at(lambda number: number < sweep.GIVE_UP_AFTER, pause=0.5):
        report = Sweep(conf.deployment(), workers=1).run()
    assert counted(report) == {"renewed": 1, "unavailable": 5, "skipped": 6}
    assert report.reasons == {AIRISK_DOWN: 6}


class TimeIsUp(BaseException):
    """A job queue's limit: raised by a signal's handler, wherever the main thread happens to be."""


def test_a_time_limit_that_strikes_while_results_are_gathered_loses_none(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = connected_users(12)
    monkeypatch.setattr(sweep, "GATHER", 5)

    def strike(*_args: object) -> None:
        raise TimeIsUp

    struck = threading.Event()
    begun = []

    def fails(number: int) -> bool:
        begun.append(number)
        if number == 1:
            # The first one's result is in the main thread's hand by then, and it waits for more.
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
    assert not AIRiskToken.objects.exclude(lease=None).exists()


def test_told_to_stop_it_finishes_what_is_in_flight_and_saves_it(airisk: World) -> None:
    tokens = connected_users(20)
    this = Sweep(conf.deployment(), workers=2)
    report = this.run(lambda _what: this.stop.set())
    renewed = report.counts["renewed"]
    assert 1 <= renewed == len(token_requests(airisk)) == sum(renewed_of(tokens)) <= 8
    assert report.reasons == {INTERRUPTED: 20 - renewed}
    assert not report.is_clean
    assert not AIRiskToken.objects.exclude(lease=None).exists()


def test_told_to_stop_it_gives_back_what_no_worker_has_begun(airisk: World) -> None:
    """A slow AIRisk and a queue must not outlast the seconds that a supervisor waits after SIGTERM."""
    connected_users(20)
    airisk.switches.latency = 0.4
    this = Sweep(conf.deployment(), workers=1)
    this.stop.set()
    assert this.run().counts["renewed"] == 0
    this.stop.clear()
    report = this.run(lambda _what: this.stop.set())
    assert report.counts["renewed"] <= 2
    assert not report.is_clean
    assert not AIRiskToken.objects.exclude(lease=None).exists()


@pytest.mark.parametrize("number", [2, 400])
def test_refused_client_is_told_until_it_is_fixed(
    airisk: World, settings: Any, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """However many tokens there are, a run costs AIRisk a few dozen requests, and the first one afterwards renews."""
    tokens = connected_users(number)
    trouble(airisk, settings, "unknown client")
    for round_ in range(1, 4):
        set_clock(monkeypatch, 300 * round_)
        before = len(airisk.journal)
        report = Sweep(conf.deployment()).run()
        assert not report.is_clean
        assert report.client_refused
        assert report.counts["renewed"] == 0
        # Twice what is under way at a time, and one for the application.
        assert 1 <= len(airisk.journal) - before <= 2 * (sweep.PAGE + sweep.RESERVE) * 8 + 1
    del settings.AIRISK_OAUTH_SANDBOX_CLIENTS
    set_clock(monkeypatch, 1500)
    report = Sweep(conf.deployment()).run()
    assert (counted(report), report.is_clean) == ({"renewed": number}, True)
    assert all(renewed_of(tokens))


# Whom AIRisk refuses


@contextmanager
def answering(status_of: Callable[[str], int]) -> Iterator[list[str]]:
    """Let AIRisk answer for each userid ("" for the application) with this status, and note in which order it does."""
    asked: list[str] = []

    def authorize(request: Any) -> tuple[int, dict[str, str], str]:
        asked.append(request.params.get("userid", ""))
        status = status_of(asked[-1])
        query = urlencode({"code": "code", "state": request.params["state"]})
        return status, {"Location": f"https://app.example.com/airisk/callback/?{query}"} if status == 302 else {}, ""

    with responses.RequestsMock(assert_all_requests_are_fired=False) as wire:
        wire.add_callback(responses.GET, f"{BASE_URL}/api/oauth2", authorize)
        wire.post(f"{BASE_URL}/api/oauth2/Token", json={"access_token": "renewed"})
        yield asked


def refusing(departed: list[AIRiskToken], application: int = 302, others: int = 302) -> Callable[[str], int]:
    """Return what AIRisk answers when it does not know these users."""
    statuses = {"": application, **{token.userid: 401 for token in departed}}
    return lambda userid: statuses.get(userid, others)


@pytest.mark.parametrize("application", [302, 401, 403, 503])
@pytest.mark.parametrize("within", [timedelta(minutes=10), None])
def test_sweep_passes_over_departed_users(application: int, within: timedelta | None) -> None:
    """Also where AIRisk does not tell by the application's token that it is not the client that it refuses."""
    departed, healthy = connected_users(60, ends_in=30), connected_users(30)
    with answering(refusing(departed, application)) as asked:
        report = Sweep(conf.deployment(), within=within).run()
    assert all(renewed_of(healthy))
    assert max(Counter(filter(None, asked)).values()) == 1
    if application == 302:
        assert counted(report) == {"refused": 60, "renewed": 30}
        assert asked.count("") <= 5
    assert {each.reason for each in report.needs_person} == {"refused by AIRisk"}
    tried = [token for token in departed if token.userid in asked]
    assert {each.token_id for each in report.needs_person} == {token.pk for token in tried}


def test_departed_users_fail_no_later_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    departed = connected_users(8)
    with answering(refusing(departed)) as asked:
        assert not Sweep(conf.deployment()).run().is_clean
        for minutes in range(5, 24 * 60, 5):
            set_clock(monkeypatch, 60 * minutes)
            report = Sweep(conf.deployment()).run()
            assert report.is_clean
            assert not report.needs_person
        # Tried rarely: the pause has grown.
        assert asked.count(departed[0].userid) <= 14
        AIRiskToken.objects.all().delete()
        [other] = connected_users(1)
        assert run() == {"renewed": 1}
        assert renewed_of([other]) == [True]


def test_tokens_known_to_need_a_person_come_last() -> None:
    long_ago = timezone.now() - HOUR
    known = connected_users(
        5, ends_in=-60, failure_kind="refused", failure_count=3, failing_since=long_ago, retry_at=long_ago
    )
    healthy = connected_users(5)
    with answering(refusing(known)) as asked:
        assert run(limit=5) == {"renewed": 5}
        assert run(workers=1) == {"refused": 5}
    assert asked == [*asked[:5], *(token.userid for token in known)]
    assert all(renewed_of(healthy))


def test_known_ones_are_not_all_tried_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many of them, and AIRisk tells by nothing whether it is the client that it refuses: some now, some later."""
    long_ago = timezone.now() - HOUR
    known = connected_users(100, failure_kind="refused", failure_count=3, failing_since=long_ago, retry_at=long_ago)
    with answering(refusing(known, application=503)) as asked:
        report = Sweep(conf.deployment(), workers=1).run()
        assert (report.is_clean, report.reasons) == (True, {})
        assert sweep.SAMPLE <= report.counts["refused"] == len(asked) <= sweep.SAMPLE + 10
        run(workers=1)
        assert len(asked) == len(set(asked)) == 2 * report.counts["refused"]
        # Whoever asks for all gets all.
        assert run(within=None) == {"refused": 100}


@pytest.mark.parametrize("application", [401, 403, 503])
@pytest.mark.parametrize("number", [20, 200])
def test_few_requests_where_all_are_refused(application: int, number: int) -> None:
    """The second run knows more than the first one, and asks less."""
    tokens = connected_users(number)
    with answering(refusing(tokens, application)) as asked:
        first = Sweep(conf.deployment(), workers=2).run()
        assert not first.is_clean
        assert first.client_refused == (application == 401 or number == 200)
        assert len(asked) <= sweep.GIVE_UP_AFTER + sweep.SAMPLE + 20
    assert first.counts["refused"] + first.counts["skipped"] == number
    assert not AIRiskToken.objects.exclude(lease=None).exists()


@pytest.mark.parametrize("application", [302, 401, 503])
@pytest.mark.parametrize("number", [1, 4])
def test_wrong_secret_is_blamed_on_no_user(application: int, number: int) -> None:
    """However few tokens are due: the application's token tells whether it is the site that AIRisk refuses."""
    tokens = connected_users(number)
    with answering(refusing(tokens, application)) as asked:
        report = Sweep(conf.deployment()).run()
    assert not report.is_clean
    assert report.client_refused is (application == 401)
    assert len(report.needs_person) == (0 if application == 401 else number)
    assert asked.count("") == 1


@pytest.mark.parametrize("application", [401, 503])
def test_one_success_clears_the_client(application: int) -> None:
    """A client that gets tokens of users only is refused the application's; another answer tells nothing."""
    departed, healthy = (
        connected_users(1, failure_kind="refused", failure_status=401, failing_since=timezone.now()),
        connected_users(3),
    )
    with answering(refusing(departed, application)) as asked:
        report = Sweep(conf.deployment()).run()
        assert (counted(report)["renewed"], report.client_refused, report.is_clean) == (3, False, True)
        assert asked.count("") == 1
        assert all(renewed_of(healthy))
        run()
        assert asked.count("") == 1


def test_refusals_and_an_outage_are_told_apart() -> None:
    departed = connected_users(4, ends_in=30)
    connected_users(40)
    with answering(refusing(departed, others=503)):
        report = Sweep(conf.deployment(), workers=1).run()
    assert report.reasons.keys() == {AIRISK_DOWN}
    assert not report.client_refused
    assert report.counts["refused"] == 4


# Times from the future


@pytest.mark.parametrize("ahead", [timedelta(hours=8), timedelta(days=3650)], ids=["8 hours", "10 years"])
@pytest.mark.parametrize(
    "names",
    [
        ("renewed_at",),
        ("retry_at",),
        ("failed_at", "retry_at"),
        ("failed_at", "failing_since", "retry_at"),
        ("failing_since",),
        ("last_used_at",),
        ("lease_until",),
    ],
    ids="+".join,
)
@pytest.mark.parametrize("kind", ["", "unavailable", "refused"])
def test_no_token_waits_for_a_time_of_a_wrong_clock(
    airisk: World, names: tuple[str, ...], kind: str, ahead: timedelta
) -> None:
    if names == ("retry_at",) and kind == "refused" and ahead < DAY:
        pytest.skip("a pause that we may have made")
    values: dict[str, Any] = dict.fromkeys(names, timezone.now() + ahead)
    lease = uuid4() if "lease_until" in names else None
    tokens = connected_users(2, failure_kind=kind, failure_count=int(kind != ""), lease=lease, **values)
    assert run() == {"renewed": 2}
    assert all(renewed_of(tokens))


# Who is deactivated


@pytest.mark.parametrize("within", [timedelta(minutes=10), None])
def test_tokens_of_deactivated_users_are_left_out(airisk: World, within: timedelta | None) -> None:
    tokens = connected_users(3)
    give_token(None, ends_in=60)
    User.objects.filter(username=tokens[1].userid).update(is_active=False)
    this = Sweep(conf.deployment(), within=within)
    assert this.total() == 3
    assert counted(this.run()) == {"renewed": 3}
    assert renewed_of(tokens) == [True, False, True]
    one: dict[str, Any]
    for one in ({"user_id": tokens[1].user_id}, {"pks": [tokens[1].pk]}):
        report = Sweep(conf.deployment(), within=within, **one).run()
        assert (report.reasons, report.is_clean) == ({DEACTIVATED: 1}, True)


def test_users_need_not_have_the_column(airisk: World, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the user model has no column ``is_active``, a property of that name is asked, if there is one."""
    tokens = connected_users(3)
    settings.AUTH_USER_MODEL = "auth.Group"
    Group.objects.bulk_create(Group(pk=token.user_id, name=token.userid) for token in tokens)
    assert run(limit=1) == {"renewed": 1}
    monkeypatch.setattr(Group, "is_active", property(lambda group: group.name != tokens[2].userid), raising=False)
    report = Sweep(conf.deployment()).run()
    assert (counted(report), report.reasons) == ({"renewed": 1, "skipped": 1}, {DEACTIVATED: 1})
    assert report.is_clean
    assert renewed_of(tokens) == [True, True, False]


# Beside others


def test_what_a_caller_takes_over_is_not_asked_for(airisk: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "LOOK_AGAIN", 0)
    tokens = connected_users(6)
    airisk.switches.latency = 0.05

    def take_over(_what: str) -> None:
        AIRiskToken.objects.filter(pk=tokens[5].pk).update(lease=uuid4())

    report = Sweep(conf.deployment(), workers=1).run(take_over)
    assert (counted(report), report.reasons) == ({"renewed": 5, "skipped": 1}, {RENEWED_ELSEWHERE: 1})
    assert report.is_clean
    assert tokens[5].userid not in {seen.values.get("userid") for seen in airisk.journal}


@committing
@on_postgresql_only
def test_sweep_holds_no_row_while_it_waits(airisk: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction of the site's holds one row until the others are saved: both would wait for each other."""
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


def test_a_large_sweep_asks_the_database_once_for_ten_tokens_at_the_most(
    airisk: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy machine brings less in the time that is usual.
    monkeypatch.setattr(sweep, "GATHER", 1)
    tokens = connected_users(500)
    with CaptureQueriesContext(connection) as queries:
        assert run(workers=32) == {"renewed": 500}
    assert all(renewed_of(tokens))
    about_rows = [query for query in queries if query["sql"].startswith(("SELECT", "UPDATE"))]
    assert len(about_rows) <= 0.1 * len(tokens)
