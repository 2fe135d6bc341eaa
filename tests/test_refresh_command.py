"""``refresh_airisk_tokens``: what it renews, what it prints, and its exit status."""

import io
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.utils import timezone

from airisk_oauth.management.commands import refresh_airisk_tokens
from airisk_oauth.models import AIRiskIdentity, AIRiskToken
from airisk_oauth.sandbox.world import World
from airisk_oauth.tokens import report
from airisk_oauth.userids import FromIdentity
from tests.support.clock import set_clock, wait_until
from tests.support.commands import COUNTED, refresh, refresh_json
from tests.support.database import committing
from tests.support.options import (
    set_option,
    trouble,
)
from tests.support.pages import ROOT
from tests.support.people import connected_users, give_token, renewed_of, token_requests
from tests.support.threads import attempt

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("save_soon")]


@pytest.fixture
def tokens(airisk: World, mia: User) -> dict[str, AIRiskToken]:
    """One of each kind on ``default``, and two on ``second``."""
    long_ago = timezone.now() - timedelta(days=31)
    return {
        "mia": give_token(mia, ends_in=60),
        "application": give_token(None, ends_in=90),
        "ended": connected_users(1, ends_in=-60)[0],
        "hour": connected_users(1, ends_in=3000)[0],
        "endless": connected_users(1, ends_in=None)[0],
        "idle": connected_users(1, last_used_at=long_ago)[0],
        "cooling": connected_users(1, retry_at=timezone.now() + timedelta(hours=1))[0],
        "second": connected_users(1, "second")[0],
        "second hour": connected_users(1, "second", ends_in=3000)[0],
    }


DUE = {"mia", "application", "ended", "second"}
ALL = {*DUE, "hour", "endless", "idle", "cooling", "second hour"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, DUE),
        ({"within": "10m"}, DUE),
        ({"within": "70s"}, DUE - {"application"}),
        ({"within": "0s"}, {"ended"}),
        ({"within": "1h"}, DUE | {"hour", "second hour"}),
        ({"within": "2d"}, DUE | {"hour", "second hour"}),
        ({"all": True}, ALL),
        ({"all": True, "within": "0s"}, ALL),
        ({"deployment": "second"}, {"second"}),
        ({"deployment": "second", "all": True}, {"second", "second hour"}),
        ({"user": "mia"}, {"mia"}),
        ({"user": "mia", "deployment": "second"}, set()),
        ({"limit": "2"}, {"ended", "mia"}),
        ({"limit": "3"}, {"ended", "mia", "application"}),
        ({"limit": "4"}, DUE),
        ({"limit": "100", "workers": "1"}, DUE),
    ],
)
@pytest.mark.parametrize("as_arguments", [True, False], ids=["arguments", "keywords"])
def test_options_choose_which_tokens_are_renewed(
    airisk: World,
    tokens: dict[str, AIRiskToken],
    options: dict[str, Any],
    expected: set[str],
    as_arguments: bool,
) -> None:
    arguments = [f"--{name}" if value is True else f"--{name}={value}" for name, value in options.items()]
    refresh(*arguments) if as_arguments else refresh(**options)
    assert {name for name, token in tokens.items() if renewed_of([token]) == [True]} == expected


def test_options_can_be_numbers_and_durations(airisk: World, tokens: dict[str, AIRiskToken]) -> None:
    status, answer = refresh_json(within=timedelta(hours=1), limit=5, workers=2)
    assert (status, answer["renewed"], answer["paused"]) == (1, 5, 1)


@pytest.mark.parametrize(
    "options",
    [
        {"within": "10"},
        {"within": "-1m"},
        {"within": "1.5h"},
        {"within": "m"},
        {"within": "1m "},
        {"limit": 0},
        {"limit": "-1"},
        {"limit": "many"},
        {"workers": 0},
        {"workers": "2.5"},
        {"user": "nobody"},
        {"deployment": "third"},
    ],
)
@pytest.mark.parametrize("dry_run", [False, True])
def test_wrong_option_exits_2_before_any_renewal(
    airisk: World, tokens: dict[str, AIRiskToken], options: dict[str, Any], dry_run: bool
) -> None:
    assert refresh(**options, dry_run=dry_run) == (2, "")
    assert not airisk.journal


def test_missing_database_exits_2(mia: User) -> None:
    give_token(mia, ends_in=60)

    def gone(*args: Any) -> Any:
        raise OperationalError("the database is gone")

    with connection.execute_wrapper(gone):
        assert refresh(json=True) == (2, "")


@pytest.mark.parametrize("of_second", [{"TIMEOUT": "soon"}, {"BASE_URL": "nowhere"}])
def test_wrong_setting_exits_2_before_any_renewal(
    airisk: World, settings: Any, mia: User, of_second: dict[str, str]
) -> None:
    give_token(mia, ends_in=60)
    set_option(settings, "second", **of_second)
    assert refresh(json=True) == (2, "")
    assert not airisk.journal


def test_missing_setting_exits_2(settings: Any) -> None:
    settings.AIRISK_OAUTH = {}
    assert refresh(json=True) == (2, "")


def test_json_has_all_counts_and_each_deployments(airisk: World, tokens: dict[str, AIRiskToken]) -> None:
    status, answer = refresh_json()
    assert status == 1
    assert list(answer) == [*COUNTED, "seconds", "deployments", "needs_person", "client_refused"]
    assert answer["needs_person"] == answer["client_refused"] == []
    assert answer["seconds"] >= 0
    assert [answer[name] for name in COUNTED] == [4, 0, 0, 0, 1]
    assert answer["deployments"] == {
        "default": dict(zip(COUNTED, [3, 0, 0, 0, 1], strict=True)),
        "second": dict(zip(COUNTED, [1, 0, 0, 0, 0], strict=True)),
    }


@pytest.mark.parametrize(
    ("what", "word"), [("refuse", "refused"), ("login_page", "refused"), ("outage", "unavailable")]
)
def test_exit_status_is_1_if_a_renewal_failed(airisk: World, settings: Any, mia: User, what: str, word: str) -> None:
    give_token(mia, ends_in=60)
    trouble(airisk, settings, what)
    status, answer = refresh_json(deployment="default")
    assert status == 1
    assert {name: answer[name] for name in COUNTED} == {name: int(name == word) for name in COUNTED}


def test_exit_status_is_1_if_an_identity_is_gone(airisk: World, mia: User) -> None:
    give_token(mia, ends_in=60)
    AIRiskIdentity.objects.all().delete()
    status, answer = refresh_json(deployment="default")
    assert status == 1
    assert {name: answer[name] for name in COUNTED} == {name: int(name == "skipped") for name in COUNTED}


def test_exit_status_is_1_if_some_were_refused(airisk: World, settings: Any, mia: User) -> None:
    give_token(mia, ends_in=60)
    settings.AIRISK_OAUTH_SANDBOX_USERS = {token.userid: "known" for token in connected_users(2)}
    status, answer = refresh_json()
    assert (status, answer["renewed"], answer["refused"]) == (1, 2, 1)


def test_exit_status_is_1_all_through_an_outage(airisk: World, mia: User) -> None:
    # Refused before, reported then, and no reason to fail every later run.
    connected_users(1, failure_kind="refused", retry_at=timezone.now() + timedelta(hours=1))
    give_token(mia, ends_in=60)
    airisk.switches.outage = True
    assert refresh_json()[0] == 1
    status, answer = refresh_json()
    assert (status, answer["unavailable"], answer["paused"]) == (1, 0, 1)
    assert answer["deployments"]["default"]["paused"] == 1
    airisk.switches.outage = False
    status, answer = refresh_json(all=True, user="mia")
    assert (status, answer["renewed"], answer["paused"]) == (0, 1, 0)
    assert refresh_json()[0] == 0


def test_exit_status_is_0_if_leased_elsewhere(airisk: World, mia: User) -> None:
    lease = {"lease": uuid4(), "lease_until": timezone.now() + timedelta(minutes=1)}
    give_token(mia, ends_in=60, **lease)
    status, answer = refresh_json()
    assert (status, answer["skipped"]) == (0, 1)


def test_outage_of_one_deployment_spares_others(airisk: World, settings: Any) -> None:
    tokens = connected_users(3, "second")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        set_option(settings, BASE_URL=f"http://127.0.0.1:{nobody.getsockname()[1]}")
        connected_users(60)
        status, answer = refresh_json(workers=2)
    assert status == 1
    down = answer["deployments"]["default"]
    assert 5 <= down["unavailable"] < 30
    assert down["unavailable"] + down["skipped"] == 60
    assert renewed_of(tokens) == [True] * 3


# What it says


def test_output_has_counts_and_reasons_for_people(airisk: World, tokens: dict[str, AIRiskToken]) -> None:
    AIRiskIdentity.objects.filter(deployment="second").delete()
    assert refresh(dry_run=True) == (0, "default: 3 to renew.\nsecond: 1 to renew.\n")
    status, out = refresh()
    assert status == 1
    *lines, last = out.splitlines()
    assert lines == [
        "default: 3 renewed, 0 refused, 0 unavailable, 0 skipped, 1 paused.",
        "  1 paused: renewing failed before, and is retried later; --all tries now.",
        "second: 0 renewed, 0 refused, 0 unavailable, 1 skipped, 0 paused.",
        "  1 skipped: the user's AIRisk identity has changed or was removed.",
        f"  Needs a person: token {tokens['second'].pk} of user {tokens['second'].user_id} on second "
        "(the user's AIRisk identity has changed or was removed).",
    ]
    assert last.startswith("Done in ")


def refresh_as_cron(**options: Any) -> tuple[int, str]:
    """Run the command, and return its exit status and what reaches a mailbox where the output is thrown away."""
    try:
        call_command("refresh_airisk_tokens", stdout=io.StringIO(), **options)
    except CommandError as error:
        return error.returncode, str(error)
    return 0, ""


def assert_named_once(monkeypatch: pytest.MonkeyPatch, tokens: list[AIRiskToken], reason: str, counted_as: str) -> None:
    """Run the command again and again: it names these tokens in the first run, and no later one fails."""
    status, answer = refresh_json()
    assert status == 1
    assert sorted(answer["needs_person"], key=lambda each: each["token_id"]) == [
        {"token_id": token.pk, "user_id": token.user_id, "deployment": "default", "reason": reason} for token in tokens
    ]
    for minutes in (5, 10, 60):
        set_clock(monkeypatch, 60 * minutes)
        status, answer = refresh_json()
        assert (status, answer["needs_person"]) == (0, [])
        assert answer[counted_as] >= 1
    AIRiskToken.objects.update(failure_kind="", failing_since=None)
    status, message = refresh_as_cron(all=True)
    assert status == 1
    assert "A person is needed for token" in message
    for token in tokens:
        owner = "the application" if token.user_id is None else f"user {token.user_id}"
        assert f"token {token.pk} of {owner} on default ({reason})" in message
    assert refresh_as_cron(all=True) == (0, "")


@pytest.mark.parametrize(
    ("what", "reason"), [("refuse", "refused by AIRisk"), ("login_page", "AIRisk requires a sign-in")]
)
def test_refused_token_is_named_once(
    airisk: World, settings: Any, mia: User, what: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = [give_token(mia, ends_in=60), give_token(None, ends_in=60)]
    trouble(airisk, settings, what)
    assert_named_once(monkeypatch, tokens, reason, counted_as="refused")


def test_token_without_identity_is_named_once(airisk: World, mia: User, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = [give_token(mia, ends_in=60)]
    AIRiskIdentity.objects.all().delete()
    reason = "the user's AIRisk identity has changed or was removed"
    assert_named_once(monkeypatch, tokens, reason, counted_as="skipped")


def test_only_so_many_tokens_are_named(airisk: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "NAMED", 2)
    connected_users(5)
    AIRiskIdentity.objects.all().delete()
    status, told = refresh_as_cron()
    assert (status, told.count("of user"), "and 3 more, which are in the log" in told) == (1, 2, True)


def test_rejected_site_is_reported_in_every_run(airisk: World, settings: Any, mia: User) -> None:
    give_token(mia, ends_in=60)
    trouble(airisk, settings, "unknown client")
    assert refresh_json()[0] == 1
    words = "AIRisk does not accept this site for default: try check_airisk --deployment default."
    for _run in range(2):
        status, told = refresh_as_cron()
        assert (status, words in told) == (1, True)
        status, told = refresh()
        assert (status, words in told) == (1, True)
        status, answer = refresh_json()
        assert (status, answer["client_refused"]) == (1, ["default"])


def test_dry_run_renews_and_changes_nothing(airisk: World, tokens: dict[str, AIRiskToken]) -> None:
    before = list(AIRiskToken.objects.order_by("pk").values())
    expected = {"would_renew": 4, "deployments": {"default": 3, "second": 1}}
    assert refresh_json(dry_run=True) == (0, expected)
    assert list(AIRiskToken.objects.order_by("pk").values()) == before
    assert not airisk.journal


@pytest.mark.parametrize(
    "options", [{}, {"all": True}, {"limit": 1}, {"limit": 3}, {"limit": 4}, {"deployment": "second"}, {"user": "mia"}]
)
def test_dry_run_prints_what_a_run_would_renew(
    airisk: World, tokens: dict[str, AIRiskToken], options: dict[str, Any]
) -> None:
    _status, plan = refresh_json(dry_run=True, **options)
    _status, done = refresh_json(**options)
    assert plan["would_renew"] == done["renewed"]
    assert plan["deployments"] == {alias: counts["renewed"] for alias, counts in done["deployments"].items()}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line of progress for each token."""
    monkeypatch.setattr(refresh_airisk_tokens, "LINE_EVERY", 0.0)


@pytest.mark.usefixtures("often")
def test_progress_is_a_bar_on_a_terminal(airisk: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stderr := Terminal())
    connected_users(3)
    status, out = refresh(limit=2)
    assert status == 0
    assert "2/2" in stderr.getvalue()
    assert "tokens done" not in out


def test_progress_stands_still_after_giving_up(airisk: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stderr := Terminal())
    connected_users(40)
    airisk.switches.outage = True
    assert refresh(workers=1)[0] == 1
    assert "40/40" not in stderr.getvalue()
    assert "100%" not in stderr.getvalue()


@pytest.mark.parametrize("has_handler", [True, False])
def test_log_lines_do_not_break_into_the_bar(
    airisk: World, mia: User, monkeypatch: pytest.MonkeyPatch, has_handler: bool
) -> None:
    monkeypatch.setattr(sys, "stderr", stderr := Terminal())
    root, ours = logging.getLogger(), logging.getLogger("airisk_oauth")
    # pytest's own handlers would make Python believe that there is one.
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(ours, "handlers", [logging.StreamHandler(stderr)] if has_handler else [])
    give_token(mia, ends_in=60)
    airisk.switches.refuse = True
    refresh()
    lines = re.split("[\r\n]", stderr.getvalue())
    logged = [line.removesuffix("\x1b[A") for line in lines if "was not renewed" in line]
    assert len(logged) == 1
    assert logged[0].startswith("AIRisk token ")


@pytest.mark.usefixtures("often")
def test_progress_is_lines_without_a_terminal(airisk: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stderr := io.StringIO())
    connected_users(3)
    status, out = refresh(limit=2)
    assert (status, stderr.getvalue()) == (0, "")
    lines = [line for line in out.splitlines() if "tokens done" in line]
    assert lines == ["1 of 2 tokens done.", "2 of 2 tokens done."]


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_json_is_accompanied_by_no_progress(
    airisk: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stream: type[io.StringIO]
) -> None:
    monkeypatch.setattr(sys, "stderr", stderr := stream())
    connected_users(3)
    status, out = refresh(limit=2, json=True)
    assert (status, stderr.getvalue()) == (0, "")
    assert len(out.splitlines()) == 1
    assert capsys.readouterr().out == ""


def test_progress_lines_are_few(airisk: World) -> None:
    connected_users(2)
    assert "tokens done" not in refresh()[1]


# As a process


def run_as_process(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run the command as manage.py does, and return its exit status, output and errors."""
    status = 0
    try:
        refresh_airisk_tokens.Command().run_from_argv(["manage.py", "refresh_airisk_tokens", *arguments])
    except SystemExit as exit_:
        status = int(exit_.code or 0)
    printed = capsys.readouterr()
    return status, printed.out, printed.err


@committing
@pytest.mark.parametrize("arguments", [[], ["--json", "--user=mia"]], ids=" ".join)
def test_process_exits_0_if_all_were_renewed(
    airisk: World, mia: User, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    give_token(mia, ends_in=60)
    status, out, errors = run_as_process(capsys, *arguments)
    assert (status, errors) == (0, "")
    assert out


@committing
def test_process_exits_1_if_a_token_was_refused(airisk: World, mia: User, capsys: pytest.CaptureFixture[str]) -> None:
    give_token(mia, ends_in=60)
    airisk.switches.refuse = True
    status, out, errors = run_as_process(capsys)
    assert status == 1
    assert "Not all tokens were renewed." in errors
    assert out


@committing
@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--within=soon", "--within: 'soon' is not a duration"),
        ("--limit=none", "--limit: 'none' is not a whole number"),
        ("--user=nobody", "--user: there is no user 'nobody'."),
        ("--deployment=third", "Nothing could be tried"),
        ("--every", "unrecognized arguments"),
    ],
)
def test_process_exits_2_if_nothing_was_tried(
    airisk: World, mia: User, capsys: pytest.CaptureFixture[str], argument: str, words: str
) -> None:
    give_token(mia, ends_in=60)
    status, out, errors = run_as_process(capsys, argument)
    assert (status, out) == (2, "")
    assert words in errors
    assert not airisk.journal


@committing
@pytest.mark.parametrize(
    ("command", "setting"),
    [
        ("refresh_airisk_tokens", "AIRISK_OAUTH = {'default': {'BASE_URL': 'demo'}}"),
        ("refresh_airisk_tokens", "AIRISK_OAUTH_ENCRYPTION_KEYS = ['x']"),
        ("reseal_airisk_tokens", "AIRISK_OAUTH_ENCRYPTION_KEYS = ['x']"),
    ],
)
def test_manage_py_exits_2_for_a_wrong_setting(
    mia: User, environment: dict[str, str], tmp_path: Path, command: str, setting: str
) -> None:
    give_token(mia, ends_in=60)
    (tmp_path / "wrong_settings.py").write_text(f"from tests.settings import *\n{setting}\n", encoding="utf-8")
    variables = {
        "DJANGO_SETTINGS_MODULE": "wrong_settings",
        "PYTHONPATH": f"{tmp_path}:{ROOT}",
        **{name: environment[name] for name in ("DATABASE_URL", "AIRISK_BASE_URL")},
    }
    line = [sys.executable, str(ROOT / "manage.py"), command]
    done = subprocess.run(line, env=variables, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert "Traceback" not in done.stderr


class HandlerOfTheSite(Exception):
    """The signal reached somebody else than the command."""


@pytest.fixture
def site_handler() -> Iterator[Any]:
    def handle(*args: object) -> None:
        raise HandlerOfTheSite

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    yield handle
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_lets_the_command_save_and_exit(airisk: World, site_handler: Any, number: signal.Signals) -> None:
    tokens = connected_users(60)
    connected_users(5, "second")
    airisk.switches.latency = 0.05

    def interrupt() -> None:
        wait_until(lambda: token_requests(airisk))
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    status, answer = refresh_json(workers=2)
    thread.join()
    assert status == 1
    assert 1 <= answer["renewed"] == sum(renewed_of(tokens)) == len(token_requests(airisk)) < 30
    assert answer["renewed"] + answer["skipped"] == 65
    assert answer["deployments"]["second"]["skipped"] == 5
    assert not AIRiskToken.objects.exclude(lease=None).exists()
    # From here on signals are the site's own again.
    assert signal.getsignal(signal.SIGTERM) is signal.getsignal(signal.SIGINT) is site_handler


@committing
def test_command_works_in_a_thread(airisk: World, mia: User) -> None:
    give_token(mia, ends_in=60)
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(attempt, refresh_json).result()
    assert not isinstance(result, Exception)
    assert (result[0], result[1]["renewed"]) == (0, 1)


class BreaksOff:
    """A resolver whose directory is set up wrong from the second page on."""

    def __init__(self) -> None:
        self.pages = 0

    def __call__(self, user: Any, deployment: str) -> str | None:
        raise NotImplementedError

    def many(self, user_ids: list[Any], deployment: str) -> dict[Any, str]:
        self.pages += 1
        if self.pages > 1:
            raise ImproperlyConfigured("the directory has no address")
        return FromIdentity().many(user_ids, deployment)


def test_run_broken_off_midway_exits_1(
    airisk: World, tokens: dict[str, AIRiskToken], settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "breaks_off", BreaksOff(), raising=False)
    set_option(settings, USERID=f"{__name__}.breaks_off")
    with pytest.raises(CommandError, match=r"Broken off.*the directory has no address") as caught:
        call_command("refresh_airisk_tokens", workers=1, all=True)
    assert caught.value.returncode == 1
    assert not AIRiskToken.objects.exclude(lease=None).exists()
