"""Lost connections: who is announced, when, by whom, and that each is announced once."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test import Client
from django.utils import timezone

from airisk_oauth import conf
from airisk_oauth.connecting import flow
from airisk_oauth.exceptions import (
    AIRiskError,
    AIRiskInvalidResponse,
    AIRiskRefused,
    AIRiskUnavailable,
    ConnectionRequired,
)
from airisk_oauth.models import AIRiskIdentity, AIRiskToken
from airisk_oauth.sandbox.world import World
from airisk_oauth.testing import FakeAIRisk
from airisk_oauth.tokens import losses
from airisk_oauth.tokens import sweep as sweeping
from airisk_oauth.tokens.report import IDENTITY_CHANGED, OTHER_ADDRESS, UNREADABLE
from airisk_oauth.tokens.selection import Selection
from tests.support.browsing import connect
from tests.support.clock import set_clock
from tests.support.database import committing, database_away, quoted
from tests.support.losses import losses_sent, told
from tests.support.options import set_option, trouble
from tests.support.people import connected_users, credential, give_token, renew_token, stored
from tests.support.threads import at_once, result_or_error

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("save_soon")]

PERSON = ConnectionRequired("AIRisk requires a sign-in in a browser.")
DENIED = AIRiskRefused(302, "access_denied")


def fail(user: User | None = None) -> AIRiskError:
    """Make a call for which no token can be had."""
    error = result_or_error(partial(credential, user))
    assert isinstance(error, AIRiskError)
    return error


def sweep(within: timedelta | None = None, *tokens: AIRiskToken) -> None:
    """Renew what expires within this time, or everything; of these tokens only, if any are given."""
    pks = [token.pk for token in tokens] or None
    sweeping.sweep(Selection(conf.deployment(), within=within, pks=pks))


def failed(token: AIRiskToken, error: AIRiskError) -> None:
    """Note a failed renewal, as the call does to which it happened."""
    values = token.record_failure(error, timezone.now())
    AIRiskToken.objects.filter(pk=token.pk).update(**values)
    losses.note_failure(token, error)


# A call


@pytest.mark.parametrize(
    ("what", "kind"), [("refuse", AIRiskRefused), ("login_page", ConnectionRequired)], ids=["refused", "page"]
)
def test_lost_connection_is_announced_once(
    airisk: World,
    mia: User,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    what: str,
    kind: type[AIRiskError],
) -> None:
    give_token(mia, ends_in=-60)
    trouble(airisk, settings, what)
    caplog.set_level("INFO", "airisk_oauth.notices")
    with losses_sent() as lost:
        for hours in range(3):
            set_clock(monkeypatch, 3600 * hours)
            fail(mia)
    [carried] = lost
    assert isinstance(carried.pop("error"), kind)
    assert carried == {
        "sender": AIRiskToken,
        "user_id": mia.pk,
        "deployment": "default",
        "connect_url": "/airisk/connect/",
    }
    assert stored(mia).failure_count == 3
    events = [vars(record)["event"] for record in caplog.records if record.name == "airisk_oauth.notices"]
    assert events == ["connection.lost"]


def test_early_renewal_that_is_refused_is_a_loss(airisk: World, mia: User) -> None:
    give_token(mia, ends_in=60)
    airisk.switches.refuse = True
    with told() as announced:
        credential(mia)
    assert announced == [("lost", mia.pk)]


@pytest.mark.parametrize("what", ["outage", "malformed"])
def test_outage_announces_no_loss(airisk: World, mia: User, settings: Any, what: str) -> None:
    give_token(mia, ends_in=-60)
    trouble(airisk, settings, what)
    with told() as announced:
        fail(mia)
        sweep()
    assert announced == []


def test_outage_in_between_makes_no_second_loss(airisk: World, mia: User, monkeypatch: pytest.MonkeyPatch) -> None:
    give_token(mia, ends_in=-60)
    with told() as announced:
        for hours, outage in enumerate((False, True, False)):
            set_clock(monkeypatch, 3600 * hours)
            airisk.switches.outage, airisk.switches.refuse = outage, not outage
            fail(mia)
    assert announced == [("lost", mia.pk)]


def test_expiry_is_a_loss_without_silent_renewal(airisk: World, mia: User, settings: Any) -> None:
    set_option(settings, SILENT_RENEWAL=False)
    give_token(mia, ends_in=-60)
    with losses_sent() as lost:
        fail(mia)
        fail(mia)
    [carried] = lost
    assert isinstance(carried["error"], ConnectionRequired)


def test_application_has_no_page_to_connect_on(airisk: World) -> None:
    give_token(None, ends_in=-60)
    airisk.switches.login_page = True
    with losses_sent() as lost:
        fail()
    [carried] = lost
    assert (carried["user_id"], carried["connect_url"]) == (None, None)


def test_disconnecting_or_deletion_is_no_loss(airisk: World, mia: User) -> None:
    token = give_token(mia)
    with told() as announced:
        flow.disconnect(token)
        give_token(mia)
        mia.delete()
    assert announced == []


# Recovery


def test_recovery_by_itself_is_announced_once(airisk: World, mia: User, monkeypatch: pytest.MonkeyPatch) -> None:
    give_token(mia, ends_in=-60)
    with told() as announced:
        airisk.switches.refuse = True
        fail(mia)
        airisk.switches.refuse = False
        set_clock(monkeypatch, 60)
        credential(mia)
        renew_token(mia)
    assert announced == [("lost", mia.pk), ("restored", mia.pk)]
    assert stored(mia).lost_at is None


def test_recovery_by_reconnecting_is_announced(airisk: World, mia: User, browser: Client) -> None:
    give_token(mia, ends_in=-60)
    with told() as announced:
        airisk.switches.refuse = True
        fail(mia)
        airisk.switches.refuse = False
        connect(browser)
        connect(browser)
    assert announced == [("lost", mia.pk), ("restored", mia.pk)]


def test_recovery_by_a_sweep_is_announced(airisk: World, mia: User) -> None:
    give_token(mia, ends_in=-60)
    with told() as announced:
        airisk.switches.refuse = True
        sweep()
        sweep()
        airisk.switches.refuse = False
        sweep()
        airisk.switches.refuse = True
        sweep()
    assert announced == [("lost", mia.pk), ("restored", mia.pk), ("lost", mia.pk)]


def test_fake_airisk_begins_without_a_loss(settings: Any, mia: User) -> None:
    with FakeAIRisk() as fake, told() as announced:
        for _again in range(2):
            fake.connect(mia)
            fake.expire(mia)
            fake.refuse()
            fail(mia)
            fake.recover()
    assert announced == [("lost", mia.pk)] * 2


# Where nothing can be written


@committing
def test_loss_in_transaction_waits_for_its_end(airisk: World, mia: User) -> None:
    give_token(mia, ends_in=-60)
    airisk.switches.refuse = True
    with told() as announced:
        with transaction.atomic():
            fail(mia)
            assert announced == []
        assert announced == [("lost", mia.pk)]


@committing
def test_recovery_in_transaction_waits_for_end(airisk: World, mia: User, monkeypatch: pytest.MonkeyPatch) -> None:
    give_token(mia, ends_in=-60)
    airisk.switches.refuse = True
    fail(mia)
    airisk.switches.refuse = False
    set_clock(monkeypatch, 60)
    with told() as announced:
        with transaction.atomic():
            credential(mia)
            assert announced == []
        assert announced == [("restored", mia.pk)]


@committing
def test_failing_database_only_delays_a_loss(
    airisk: World, mia: User, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    give_token(mia, ends_in=-60)
    airisk.switches.refuse = True
    with told() as announced:
        with database_away('UPDATE "airisk_oauth_airisktoken" SET "lost_at"', 1):
            fail(mia)
        assert announced == []
        assert "could not be written" in caplog.text
        set_clock(monkeypatch, 60)
        fail(mia)
    assert announced == [("lost", mia.pk)]


@committing
def test_failing_database_only_delays_a_recovery(airisk: World, mia: User, monkeypatch: pytest.MonkeyPatch) -> None:
    give_token(mia, ends_in=-60)
    airisk.switches.refuse = True
    fail(mia)
    airisk.switches.refuse = False
    set_clock(monkeypatch, 60)
    with told() as announced:
        with database_away('UPDATE "airisk_oauth_airisktoken" SET "lost_at"', 1):
            credential(mia)
        assert announced == []
        renew_token(mia)
    assert announced == [("restored", mia.pk)]


# Several processes


@committing
def test_one_of_many_announces_a_loss(airisk: World, mia: User) -> None:
    """Even where they do not hold a lease, as in transactions."""
    give_token(mia, ends_in=-60)
    copies = [stored(mia) for _process in range(8)]
    for copy in copies:
        AIRiskToken.objects.filter(pk=copy.pk).update(**copy.record_failure(PERSON, timezone.now()))
    with told() as announced:
        at_once(*(partial(losses.note_failure, copy, PERSON) for copy in copies))
    assert announced == [("lost", mia.pk)]


@committing
def test_one_of_many_announces_a_recovery(airisk: World, mia: User) -> None:
    give_token(mia, lost_at=timezone.now())
    copies = [stored(mia) for _process in range(8)]
    with told() as announced:
        at_once(*(partial(losses.note_token, copy) for copy in copies))
    assert announced == [("restored", mia.pk)]


def test_token_renewed_meanwhile_is_not_lost(airisk: World, mia: User) -> None:
    token = give_token(mia)
    with told() as announced:
        losses.note_failure(token, PERSON)
    assert announced == []


# Whom a refusal concerns


@pytest.mark.parametrize(
    ("error", "of_user", "of_application"),
    [
        (AIRiskRefused(401, "Unauthorized", "00-676e-00"), False, True),
        (AIRiskRefused(403), False, True),
        (AIRiskRefused(400, "Invalid client_id"), False, True),
        (AIRiskRefused(400, "Invalid redirect_uri"), False, True),
        (AIRiskRefused(302, "unauthorized_client"), False, True),
        (AIRiskRefused(200, "invalid_request: Unauthorized", "00-676e-00"), False, True),
        (AIRiskRefused(302, "server_error"), False, False),
        (AIRiskRefused(302, "temporarily_unavailable"), False, False),
        (AIRiskRefused(302), True, True),
        (AIRiskRefused(302, "access_denied"), True, True),
        (AIRiskRefused(400, "Invalid userid"), True, True),
        (AIRiskRefused(403, "Forbidden", "00-676e-00"), True, True),
        (PERSON, True, True),
        (AIRiskUnavailable("down"), False, False),
        (AIRiskInvalidResponse("odd"), False, False),
    ],
    ids=str,
)
def test_refusal_of_the_site_is_no_users_loss(
    mia: User, error: AIRiskError, of_user: bool, of_application: bool
) -> None:
    with told() as announced:
        failed(give_token(mia, ends_in=-60), error)
        failed(give_token(None, ends_in=-60), error)
    expected = [("lost", mia.pk)] * of_user + [("lost", None)] * of_application
    assert announced == expected


def test_refused_site_is_nobodys_loss(airisk: World, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    connected_users(12, ends_in=-60)
    trouble(airisk, settings, "unknown client")
    with told() as announced:
        fail(User.objects.get(username="default-3"))
        for runs in range(3):
            set_clock(monkeypatch, 300 * runs)
            sweep(timedelta(minutes=10))
        del settings.AIRISK_OAUTH_SANDBOX_CLIENTS
        sweep()
    assert announced == []
    assert set(AIRiskToken.objects.values_list("failure_kind", flat=True)) == {""}


def refuse_with_401(token: AIRiskToken, **values: Any) -> None:
    refused = AIRiskRefused(401, "Unauthorized", "00-676e-00")
    failed(token, refused)
    AIRiskToken.objects.filter(pk=token.pk).update(**values)


def test_sweep_that_renews_others_announces_401(airisk: World) -> None:
    lost, other = connected_users(2)
    refuse_with_401(lost)
    with told() as announced:
        sweep(timedelta(minutes=10), other)
        sweep()
    assert announced == [("lost", lost.user_id), ("restored", lost.user_id)]


def test_granted_application_token_settles_a_401(airisk: World) -> None:
    """The sweep asks for it, where nothing else was renewed since AIRisk answered 401."""
    [lost] = connected_users(1)
    refuse_with_401(lost, expires_at=timezone.now() + timedelta(hours=1))
    with losses_sent() as announced:
        sweep(timedelta(minutes=1))
    [carried] = announced
    assert (carried["user_id"], carried["error"].status) == (lost.user_id, 401)


def test_later_token_of_another_user_settles_401(airisk: World) -> None:
    lost, other = connected_users(2, ends_in=3600)
    refuse_with_401(lost, failed_at=timezone.now() - timedelta(minutes=5))
    with told() as announced:
        airisk.switches.outage = True
        sweep(timedelta(0))
        assert announced == []
        AIRiskToken.objects.filter(pk=other.pk).update(renewed_at=timezone.now())
        sweep(timedelta(0))
    assert announced == [("lost", lost.user_id)]


def test_many_losses_in_a_row_are_held_back(airisk: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A maintenance page, or a mistake in the settings, must not have everybody connect again."""
    monkeypatch.setattr(losses, "IN_A_ROW", 3)
    tokens = connected_users(6)
    application = give_token(None, ends_in=60)
    airisk.switches.login_page = True
    with told() as announced:
        for token in tokens[:4]:
            credential(token.user)
        assert announced == [("lost", token.user_id) for token in tokens[:3]]
        sweep()
        assert announced[3:] == [("lost", None)]
        AIRiskToken.objects.filter(pk=application.pk).update(lost_at=None)
        sweep()
        airisk.switches.login_page = False
        sweep(None, tokens[0])
    assert announced[4:6] == [("lost", None), ("restored", tokens[0].user_id)]
    assert announced[6:] == [("lost", token.user_id) for token in tokens[3:]]


# What a sweep may not even ask for


def _remapped(token: AIRiskToken) -> None:
    AIRiskIdentity.objects.filter(user=token.user_id).update(userid="user_7")


def _unmapped(token: AIRiskToken) -> None:
    AIRiskIdentity.objects.filter(user=token.user_id).delete()


def _unreadable(token: AIRiskToken) -> None:
    AIRiskToken.objects.filter(pk=token.pk).update(sealed="sealed with a key that is gone")


def _moved(token: AIRiskToken) -> None:
    AIRiskToken.objects.filter(pk=token.pk).update(origin="https://elsewhere.example:443")


@pytest.mark.parametrize(
    ("change", "reason", "connect_url"),
    [
        (_remapped, IDENTITY_CHANGED, "/airisk/connect/"),
        (_unmapped, IDENTITY_CHANGED, None),
        (_moved, OTHER_ADDRESS, "/airisk/connect/"),
        (_unreadable, UNREADABLE, None),
    ],
)
def test_sweep_announces_what_it_may_not_renew(
    airisk: World, change: Callable[[AIRiskToken], None], reason: str, connect_url: str | None
) -> None:
    [token] = connected_users(1)
    change(token)
    with losses_sent() as announced:
        sweep()
        sweep()
    [carried] = announced
    assert (str(carried["error"]), carried["connect_url"]) == (reason, connect_url)


def test_loss_put_right_before_is_not_announced(airisk: World) -> None:
    [token] = connected_users(1, ends_in=3600, failing_since=timezone.now())
    with told() as announced:
        sweep(timedelta(0))
    assert announced == []
    assert AIRiskToken.objects.get(pk=token.pk).lost_at is None


def test_deactivated_users_loss_is_not_announced(airisk: World) -> None:
    [token] = connected_users(1, failure_kind="person", failing_since=timezone.now(), failure_count=1)
    User.objects.update(is_active=False)
    with told() as announced:
        sweep()
        User.objects.update(is_active=True)
        sweep(timedelta(0))
    assert announced == [("lost", token.user_id)]


@committing
def test_sweep_waits_for_the_database_to_announce(airisk: World, settings: Any) -> None:
    [token] = connected_users(1)
    _unmapped(token)
    with told() as announced, database_away('UPDATE "airisk_oauth_airisktoken" SET "lost_at"', 1):
        sweep()
    assert announced == [("lost", token.user_id)]


def test_healthy_sweep_asks_for_losses_once(airisk: World) -> None:
    connected_users(3)
    statements = []

    def record(execute: Any, sql: str, *args: Any) -> Any:
        statements.append(quoted(sql))
        return execute(sql, *args)

    with connection.execute_wrapper(record):
        sweep()
    assert len([sql for sql in statements if '"lost_at" IS NULL' in sql]) == 1
    assert not [sql for sql in statements if 'SET "lost_at"' in sql]
