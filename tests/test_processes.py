"""What one process cannot show: several, as on several hosts, that renew, are killed, and lose their database."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError, connection

from airisk_oauth import conf
from airisk_oauth.models import AIRiskToken
from airisk_oauth.sandbox.world import Caller, World
from airisk_oauth.tokens import leases
from tests.support.clock import set_clock, wait_until
from tests.support.database import on_postgresql_only
from tests.support.people import (
    connected_users,
    credential,
    give_token,
    live_token,
    renew_token,
    renewed_of,
    token_requests,
)

pytestmark = pytest.mark.django_db(transaction=True)

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(environment: dict[str, str]) -> Iterator[Start]:
    """Start Python processes of the site under test."""
    with ExitStack() as processes:

        def start(*arguments: str) -> "subprocess.Popen[str]":
            pipe = subprocess.PIPE
            process = processes.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", *arguments], env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True
                )
            )
            processes.callback(process.kill)
            return process

        yield start


def start_sweep(start: Start, *options: str) -> "subprocess.Popen[str]":
    return start("django", "refresh_airisk_tokens", "--json", "--deployment", "default", *options)


def begin(worker: "subprocess.Popen[str]") -> None:
    assert worker.stdin is not None
    print(file=worker.stdin, flush=True)


def answer_of(worker: "subprocess.Popen[str]") -> Any:
    assert worker.stdout is not None
    return json.loads(worker.stdout.readline())


def counts_of(process: "subprocess.Popen[str]", *, returncode: int = 0, said: str = "") -> Counter[str]:
    """Wait for a sweep's end, and return what it counted."""
    out, err = process.communicate(timeout=60)
    assert process.returncode == returncode, err
    assert said in err
    told = json.loads(out)
    return Counter({word: told[word] for word in ("renewed", "refused", "unavailable", "skipped")})


def assert_none_was_renewed_twice_at_once(airisk: World) -> None:
    by_user: dict[str, list[tuple[float, float]]] = {}
    for seen in token_requests(airisk):
        by_user.setdefault(seen.values["userid"], []).append((seen.started, seen.ended))
    for times in by_user.values():
        assert all(before[1] <= after[0] for before, after in pairwise(sorted(times)))


def assert_each_is_renewed_or_as_it_was(airisk: World, tokens: list[AIRiskToken]) -> None:
    rows = {row.pk: row for row in AIRiskToken.objects.all()}
    for token in tokens:
        row = rows.pop(token.pk)
        caller = airisk.caller_of(row.access_token)
        assert caller == Caller("client-1", token.userid) or row.sealed == token.sealed
    assert not rows


def test_workers_of_several_hosts_cause_one_renewal_and_all_their_calls_succeed(
    airisk: World, start: Start, mia: User
) -> None:
    workers = [start("tests.site_worker", "mia", "20") for _host in range(2)]
    for worker in workers:
        assert answer_of(worker) == "ready"
    for renewals, ends_in in enumerate([200, -60, 3600], start=1):
        AIRiskToken.objects.all().delete()
        live_token(airisk, mia, ends_in=ends_in)
        if ends_in == 3600:
            airisk.end_all_tokens()
        airisk.switches.latency = 0.05
        for worker in workers:
            begin(worker)
        assert [answer_of(worker) for worker in workers] == [[200] * 20] * 2
        assert len(token_requests(airisk)) == renewals


def test_hosts_that_sweep_at_once_share_the_work_and_renew_no_token_twice(airisk: World, start: Start) -> None:
    tokens = connected_users(90)
    airisk.switches.latency = 0.1
    sweeps = [start_sweep(start, "--workers=3") for _host in range(3)]
    counts = [counts_of(each) for each in sweeps]
    assert sum(count["renewed"] for count in counts) == 90
    assert min(count["renewed"] for count in counts) > 0
    assert Counter(seen.values["userid"] for seen in token_requests(airisk)) == {each.userid: 1 for each in tokens}
    assert all(renewed_of(tokens))


def test_a_worker_killed_half_way_holds_its_token_for_the_lease_and_no_longer(
    airisk: World, start: Start, mia: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = give_token(mia, ends_in=-60)
    airisk.switches.latency = 1
    worker = start("tests.site_worker", "mia", "1")
    begin(worker)
    wait_until(lambda: AIRiskToken.objects.exclude(lease=None).exists())
    worker.kill()
    worker.wait()
    airisk.switches.latency = 0
    row = AIRiskToken.objects.get()
    assert (row.sealed, row.failure_count) == (token.sealed, 0)
    assert renew_token(mia) is False
    set_clock(monkeypatch, leases.lease_seconds(conf.deployment()) + 1)
    assert airisk.caller_of(credential(mia).token) == Caller("client-1", "user_42")


def test_a_sweep_killed_half_way_leaves_every_token_whole_for_the_next_one(
    airisk: World, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = connected_users(60)
    airisk.switches.latency = 0.05
    killed = start_sweep(start, "--workers=4")
    wait_until(lambda: sum(renewed_of(tokens)) > 0)
    killed.kill()
    killed.wait()
    assert_each_is_renewed_or_as_it_was(airisk, tokens)
    done = sum(renewed_of(tokens))
    assert 0 < done < 60
    # What it held is left to it until its leases have lapsed; two pages for four workers at the most.
    held = AIRiskToken.objects.exclude(lease=None).count()
    assert 0 < held <= 16 + 4
    assert counts_of(start_sweep(start)) == Counter(renewed=60 - done - held, skipped=held)
    AIRiskToken.objects.exclude(lease=None).update(lease_until=AIRiskToken.objects.earliest("renewed_at").renewed_at)
    assert counts_of(start_sweep(start)) == Counter(renewed=held)
    assert all(renewed_of(tokens))
    assert_none_was_renewed_twice_at_once(airisk)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_end_a_sweep_saves_what_is_in_flight_and_frees_the_rest(
    airisk: World, start: Start, number: signal.Signals
) -> None:
    tokens = connected_users(60)
    airisk.switches.latency = 0.05
    sweep = start_sweep(start, "--workers=4")
    wait_until(lambda: sum(renewed_of(tokens)) > 0)
    sweep.send_signal(number)
    counts = counts_of(sweep, returncode=1)
    assert 0 < counts["renewed"] == sum(renewed_of(tokens)) == len(token_requests(airisk)) < 60
    assert counts["skipped"] == 60 - counts["renewed"]
    assert not AIRiskToken.objects.exclude(lease=None).exists()


@on_postgresql_only
def test_a_database_that_restarts_and_an_airisk_that_goes_down_cost_no_token(airisk: World, start: Start) -> None:
    tokens = connected_users(120)
    airisk.switches.latency = 0.05
    sweeps = [start_sweep(start, "--workers=3") for _host in range(2)]
    wait_until(lambda: sum(renewed_of(tokens)) > 10)
    crash_postgresql()
    wait_until(lambda: renewed_after_crash(tokens) > 40)
    airisk.switches.outage = True
    for sweep in sweeps:
        assert 5 <= counts_of(sweep, returncode=1, said="The sweep waits for the database")["unavailable"] <= 5 + 12
    assert_each_is_renewed_or_as_it_was(airisk, tokens)
    assert sum(renewed_of(tokens)) < 120
    assert not AIRiskToken.objects.exclude(lease=None).exists()
    airisk.switches.outage = False
    assert counts_of(start_sweep(start, "--all"))["renewed"] == 120
    assert_each_is_renewed_or_as_it_was(airisk, tokens)
    assert_none_was_renewed_twice_at_once(airisk)


def crash_postgresql() -> None:
    """Kill a process of the server: it ends all others too, and recovers from its log, as after a power cut."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        [backend] = cursor.fetchone()
        os.kill(backend, signal.SIGKILL)
    connection.close()


def renewed_after_crash(tokens: list[AIRiskToken]) -> int:
    try:
        return sum(renewed_of(tokens))
    except OperationalError:
        connection.close()
        return 0
