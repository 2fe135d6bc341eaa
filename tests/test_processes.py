"""Several processes, like those of several hosts, that renew tokens, are killed, and lose their database."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError, connection

from airisk_oauth import conf
from airisk_oauth.models import AIRiskToken
from airisk_oauth.sandbox.world import Caller, World
from airisk_oauth.tokens import leases
from tests.support.browsing import at_each_request
from tests.support.clock import set_clock, wait_until
from tests.support.database import ask_server, not_on_sqlite
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
    """Return a function that starts a Python process of the site under test, which is killed after the test."""
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
    """Let a worker begin with its calls."""
    assert worker.stdin is not None
    print(file=worker.stdin, flush=True)


def answer_of(worker: "subprocess.Popen[str]") -> Any:
    """Wait for the next line that a worker prints."""
    assert worker.stdout is not None
    return json.loads(worker.stdout.readline())


def counts_of(process: "subprocess.Popen[str]", *, returncode: int = 0, logged: str = "") -> Counter[str]:
    """Wait until a sweep has finished, and return its counts."""
    out, err = process.communicate(timeout=60)
    assert process.returncode == returncode, err
    assert logged in err
    report = json.loads(out)
    return Counter({word: report[word] for word in ("renewed", "refused", "unavailable", "skipped")})


def assert_no_renewals_overlap(airisk: World) -> None:
    """Check that no token was renewed by two processes at the same time."""
    by_user: dict[str, list[tuple[float, float]]] = {}
    # A process that is killed may leave half a request.
    for seen in [each for each in token_requests(airisk) if "userid" in each.values]:
        by_user.setdefault(seen.values["userid"], []).append((seen.started, seen.ended))
    for times in by_user.values():
        assert all(before[1] <= after[0] for before, after in pairwise(sorted(times)))


def assert_each_is_renewed_or_unchanged(airisk: World, tokens: list[AIRiskToken]) -> None:
    rows = {row.pk: row for row in AIRiskToken.objects.all()}
    for token in tokens:
        row = rows.pop(token.pk)
        caller = airisk.caller_of(row.access_token)
        assert caller == Caller("client-1", token.userid) or row.sealed == token.sealed
    assert not rows


def test_hosts_share_one_renewal(airisk: World, start: Start, mia: User) -> None:
    """Whether the token expires soon, has expired or was revoked; and every call of both hosts succeeds."""
    airisk.switches.latency = 0.05
    workers = [start("tests.site_worker", "mia", "20") for _host in range(2)]
    assert [answer_of(worker) for worker in workers] == ["ready"] * 2

    def renewals_for_calls_of_both() -> int:
        before = len(token_requests(airisk))
        for worker in workers:
            begin(worker)
        assert [answer_of(worker) for worker in workers] == [[200] * 20] * 2
        return len(token_requests(airisk)) - before

    live_token(airisk, mia, ends_in=200)
    assert renewals_for_calls_of_both() == 1
    AIRiskToken.objects.all().delete()
    live_token(airisk, mia, ends_in=-60)
    assert renewals_for_calls_of_both() == 1
    AIRiskToken.objects.all().delete()
    live_token(airisk, mia, ends_in=3600)
    airisk.end_all_tokens()
    assert renewals_for_calls_of_both() == 1


def test_sweeps_of_several_hosts_share_the_work(airisk: World, start: Start) -> None:
    tokens = connected_users(90)
    are_all_here = threading.Event()

    def wait_for_all_hosts() -> None:
        """Answer nobody before every host has leased tokens, however long one of them takes to start."""
        wait_until(lambda: are_all_here.is_set() or AIRiskToken.objects.values("lease").distinct().count() == 3 + 1)
        are_all_here.set()

    with at_each_request("/api/oauth2", wait_for_all_hosts):
        sweeps = [start_sweep(start, "--workers=3") for _host in range(3)]
        counts = [counts_of(each) for each in sweeps]
    assert sum(count["renewed"] for count in counts) == 90
    assert min(count["renewed"] for count in counts) > 0
    assert Counter(seen.values["userid"] for seen in token_requests(airisk)) == {each.userid: 1 for each in tokens}
    assert all(renewed_of(tokens))


def test_lease_of_a_killed_worker_expires(
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


def test_killed_sweep_leaves_every_token_usable(airisk: World, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = connected_users(60)
    airisk.switches.latency = 0.05
    killed = start_sweep(start, "--workers=4")
    wait_until(lambda: sum(renewed_of(tokens)) > 0)
    killed.kill()
    killed.wait()
    assert_each_is_renewed_or_unchanged(airisk, tokens)
    done = sum(renewed_of(tokens))
    assert 0 < done < 60
    # The next sweep skips the tokens whose leases have not expired: at most two pages, with four workers.
    leased = AIRiskToken.objects.exclude(lease=None).count()
    assert 0 < leased <= 16 + 4
    assert counts_of(start_sweep(start)) == Counter(renewed=60 - done - leased, skipped=leased)
    AIRiskToken.objects.exclude(lease=None).update(lease_until=AIRiskToken.objects.earliest("renewed_at").renewed_at)
    assert counts_of(start_sweep(start)) == Counter(renewed=leased)
    assert all(renewed_of(tokens))
    assert_no_renewals_overlap(airisk)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_sweep_saves_what_is_in_flight(airisk: World, start: Start, number: signal.Signals) -> None:
    """It releases the rest."""
    tokens = connected_users(60)
    airisk.switches.latency = 0.05
    sweep = start_sweep(start, "--workers=4")
    wait_until(lambda: sum(renewed_of(tokens)) > 0)
    sweep.send_signal(number)
    counts = counts_of(sweep, returncode=1)
    assert 0 < counts["renewed"] == sum(renewed_of(tokens)) == len(token_requests(airisk)) < 60
    assert counts["skipped"] == 60 - counts["renewed"]
    assert not AIRiskToken.objects.exclude(lease=None).exists()


@not_on_sqlite
def test_database_crash_and_outage_cost_no_token(airisk: World, start: Start) -> None:
    tokens = connected_users(120)
    leases = AIRiskToken.objects.exclude(lease=None).values("lease").distinct()
    # Slowly, so that the first sweep is not done before the second has begun.
    airisk.switches.latency = 1
    sweeps = [start_sweep(start, "--workers=3") for _host in range(2)]
    wait_until(lambda: leases.count() == 2)
    airisk.switches.latency = 0.05
    wait_until(lambda: sum(renewed_of(tokens)) > 10)
    crash_server()
    wait_until(lambda: renewed_after_crash(tokens) > 40)
    airisk.switches.outage = True
    for sweep in sweeps:
        assert 5 <= counts_of(sweep, returncode=1, logged="The sweep waits for the database")["unavailable"] <= 5 + 12
    assert_each_is_renewed_or_unchanged(airisk, tokens)
    assert sum(renewed_of(tokens)) < 120
    assert not AIRiskToken.objects.exclude(lease=None).exists()
    airisk.switches.outage = False
    assert counts_of(start_sweep(start, "--all"))["renewed"] == 120
    assert_each_is_renewed_or_unchanged(airisk, tokens)
    assert_no_renewals_overlap(airisk)


def crash_server() -> None:
    """Kill the server, which is started again and recovers from its log, as after a power cut."""
    if connection.vendor == "postgresql":
        # Otherwise it also replays the log of all earlier tests, which can take longer than a sweep waits.
        ask_server("shorten the log")
    found = ask_server("find the process")
    os.kill(int(Path(found).read_text() if connection.vendor == "mysql" else found), signal.SIGKILL)
    connection.close()


def renewed_after_crash(tokens: list[AIRiskToken]) -> int:
    """Return how many of these tokens are renewed; 0 while the server recovers."""
    try:
        return sum(renewed_of(tokens))
    except OperationalError:
        connection.close()
        return 0
