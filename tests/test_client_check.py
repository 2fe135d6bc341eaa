"""Whom AIRisk rejects when it answers 401: this site's client, or some of its users."""

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from airisk_oauth.models import AIRiskIdentity, AIRiskToken
from airisk_oauth.sandbox.world import World
from airisk_oauth.tokens import sweep
from airisk_oauth.tokens.client_check import CHECK_AFTER, SAMPLE
from airisk_oauth.tokens.report import AIRISK_DOWN, CLIENT_REJECTED
from tests.support.clock import set_clock
from tests.support.options import trouble
from tests.support.people import connected_users, renewed_of
from tests.support.sweeps import answering, counted, refusing, run, swept

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("save_soon")]


# The client is rejected


def test_rejected_client_ends_the_sweep_early(airisk: World, settings: Any) -> None:
    connected_users(40)
    trouble(airisk, settings, "unknown client")
    report = swept(workers=1)
    tried = report.counts["refused"]
    # One request more than tokens were tried: the application's.
    assert 10 <= tried == len(airisk.journal) - 1 <= 10 + 2 * (sweep.PAGE + sweep.RESERVE)
    assert report.client_refused
    assert report.reasons == {CLIENT_REJECTED: 40 - tried}
    assert AIRiskToken.objects.filter(failure_count=0).count() == 40 - tried


@pytest.mark.parametrize("number", [2, 400])
def test_rejected_client_is_reported_until_fixed(
    airisk: World, settings: Any, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """However many tokens there are, a run costs AIRisk a few dozen requests, and the first one afterwards renews."""
    tokens = connected_users(number)
    trouble(airisk, settings, "unknown client")
    for round_ in range(1, 4):
        set_clock(monkeypatch, 300 * round_)
        before = len(airisk.journal)
        report = swept()
        assert not report.is_clean
        assert report.client_refused
        assert report.counts["renewed"] == 0
        # Twice what is in flight at a time, and one for the application.
        assert 1 <= len(airisk.journal) - before <= 2 * (sweep.PAGE + sweep.RESERVE) * 8 + 1
    del settings.AIRISK_OAUTH_SANDBOX_CLIENTS
    set_clock(monkeypatch, 1500)
    report = swept()
    assert (counted(report), report.is_clean) == ({"renewed": number}, True)
    assert all(renewed_of(tokens))


@pytest.mark.parametrize("application", [401, 403, 503])
@pytest.mark.parametrize("number", [20, 200])
def test_sweep_asks_little_if_all_are_refused(application: int, number: int) -> None:
    tokens = connected_users(number)
    with answering(refusing(tokens, application)) as asked:
        report = swept(workers=2)
    assert not report.is_clean
    assert report.client_refused == (application == 401 or number == 200)
    assert len(asked) <= CHECK_AFTER + SAMPLE + 20
    assert report.counts["refused"] + report.counts["skipped"] == number
    assert not AIRiskToken.objects.exclude(lease=None).exists()


@pytest.mark.parametrize("application", [302, 401, 503])
@pytest.mark.parametrize("number", [1, 4])
def test_wrong_secret_is_blamed_on_no_user(application: int, number: int) -> None:
    """However few tokens are due: the application's token shows whether it is the site that AIRisk refuses."""
    tokens = connected_users(number)
    with answering(refusing(tokens, application)) as asked:
        report = swept()
    assert not report.is_clean
    assert report.client_refused is (application == 401)
    assert len(report.needs_person) == (0 if application == 401 else number)
    assert asked.count("") == 1


# Some users are rejected


def test_unknown_users_do_not_stop_the_sweep(airisk: World) -> None:
    tokens = connected_users(12)
    for token in tokens[:8]:
        token.userid = f"unknown_{token.pk}"
        token.access_token = "stored-token"
        token.save()
        AIRiskIdentity.objects.filter(user=token.user).update(userid=token.userid)
    assert run(workers=1) == {"refused": 8, "renewed": 4}


within_and_all = pytest.mark.parametrize("within", [timedelta(minutes=10), None], ids=["within", "all"])


@within_and_all
@pytest.mark.parametrize("application", [302, 401, 403, 503])
def test_sweep_passes_over_departed_users(application: int, within: timedelta | None) -> None:
    """Also if AIRisk's answer for the application does not show that the client is accepted."""
    departed, healthy = connected_users(60, ends_in=30), connected_users(30)
    with answering(refusing(departed, application)) as asked:
        report = swept(within=within)
    assert all(renewed_of(healthy))
    assert max(Counter(filter(None, asked)).values()) == 1
    assert {each.reason for each in report.needs_person} == {"refused by AIRisk"}
    tried = [token for token in departed if token.userid in asked]
    assert {each.token_id for each in report.needs_person} == {token.pk for token in tried}


@within_and_all
def test_accepted_client_is_checked_rarely(within: timedelta | None) -> None:
    departed = connected_users(60, ends_in=30)
    connected_users(30)
    with answering(refusing(departed)) as asked:
        assert run(within=within) == {"refused": 60, "renewed": 30}
    assert asked.count("") <= 5


@pytest.mark.parametrize("application", [401, 503])
def test_one_renewal_clears_the_client(application: int) -> None:
    """A client that gets users' tokens only is refused the application's; any other answer decides nothing."""
    departed = connected_users(1, failure_kind="refused", failure_status=401, failing_since=timezone.now())
    healthy = connected_users(3)
    with answering(refusing(departed, application)) as asked:
        report = swept()
        assert (counted(report)["renewed"], report.client_refused, report.is_clean) == (3, False, True)
        assert asked.count("") == 1
        assert all(renewed_of(healthy))
        run()
        assert asked.count("") == 1


def test_refusals_and_an_outage_are_told_apart() -> None:
    departed = connected_users(4, ends_in=30)
    connected_users(40)
    with answering(refusing(departed, others=503)):
        report = swept(workers=1)
    assert report.reasons.keys() == {AIRISK_DOWN}
    assert not report.client_refused
    assert report.counts["refused"] == 4


# Tokens known to need a person


def test_departed_users_fail_no_later_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    departed = connected_users(8)
    with answering(refusing(departed)) as asked:
        assert not swept().is_clean
        for minutes in range(5, 24 * 60, 5):
            set_clock(monkeypatch, 60 * minutes)
            report = swept()
            assert report.is_clean
            assert not report.needs_person
        # Tried rarely: the pause has grown.
        assert asked.count(departed[0].userid) <= 14
        AIRiskToken.objects.all().delete()
        [other] = connected_users(1)
        assert run() == {"renewed": 1}
        assert renewed_of([other]) == [True]


def known_to_need_a_person(number: int, **values: Any) -> list[AIRiskToken]:
    an_hour_ago = timezone.now() - timedelta(hours=1)
    times: dict[str, Any] = {"failing_since": an_hour_ago, "retry_at": an_hour_ago}
    return connected_users(number, failure_kind="refused", failure_count=3, **times, **values)


def test_tokens_known_to_need_a_person_come_last() -> None:
    known = known_to_need_a_person(5, ends_in=-60)
    healthy = connected_users(5)
    with answering(refusing(known)) as asked:
        assert run(limit=5) == {"renewed": 5}
        assert run(workers=1) == {"refused": 5}
    assert asked == [*asked[:5], *(token.userid for token in known)]
    assert all(renewed_of(healthy))


def test_known_tokens_are_not_all_retried_at_once() -> None:
    """If AIRisk's answers do not show whether it accepts the client, some are tried in this sweep, some in the next."""
    known = known_to_need_a_person(100)
    with answering(refusing(known, application=503)) as asked:
        report = swept(workers=1)
        assert (report.is_clean, report.reasons) == (True, {})
        assert SAMPLE <= report.counts["refused"] == len(asked) <= SAMPLE + 10
        run(workers=1)
        assert len(asked) == len(set(asked)) == 2 * report.counts["refused"]


def test_all_retries_the_known_tokens_at_once() -> None:
    known = known_to_need_a_person(100)
    with answering(refusing(known, application=503)):
        assert run(within=None) == {"refused": 100}
