"""Renewals inside a caller's transaction, and next to a database that fails."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.backends.signals import connection_created

from airisk_oauth import conf
from airisk_oauth.client.bearer import BearerPolicy
from airisk_oauth.exceptions import AIRiskError, ConnectionRequired
from airisk_oauth.models import AIRiskIdentity, AIRiskToken
from airisk_oauth.oauth.calls import run
from airisk_oauth.oauth.messages import Secret
from airisk_oauth.sandbox.world import World
from airisk_oauth.signals import token_renewed
from airisk_oauth.tokens import unwritten
from airisk_oauth.tokens.waiting import BLOCKING
from tests.support.database import ask_server, committing, not_on_sqlite
from tests.support.people import credential, give_token, renew_token, stored, token_requests
from tests.support.signals import signals_sent
from tests.support.threads import attempt, in_threads, result_or_error

pytestmark = committing

of_each_owner = pytest.mark.parametrize("is_user", [True, False], ids=["user", "application"])


class Undo(Exception):
    """Rolls a transaction back."""


@contextmanager
def rolled_back() -> Iterator[None]:
    with suppress(Undo), transaction.atomic():
        yield
        raise Undo


# What a caller's transaction uses, and what is written after it


def test_early_renewal_waits_for_the_commit(airisk: World, mia: User) -> None:
    give_token(mia, ends_in=200)
    with rolled_back():
        credential(mia)
    assert not airisk.journal
    with transaction.atomic():
        assert [credential(mia).token for _ in range(2)] == ["stored-token"] * 2
        assert not airisk.journal
    assert stored(mia).access_token != "stored-token"
    assert len(token_requests(airisk)) == 1


@of_each_owner
def test_token_is_used_before_it_is_written(airisk: World, mia: User, is_user: bool) -> None:
    user = mia if is_user else None
    sealed = give_token(user, ends_in=-60).sealed
    with transaction.atomic():
        token = credential(user).token
        assert token != "stored-token"
        assert (stored(user).sealed, stored(user).lease) == (sealed, None)
    assert stored(user).access_token == token


@of_each_owner
def test_failure_is_recorded_after_the_commit(airisk: World, mia: User, is_user: bool) -> None:
    user = mia if is_user else None
    give_token(user, ends_in=-60)
    airisk.switches.refuse = True
    with transaction.atomic():
        with pytest.raises(AIRiskError):
            credential(user)
        assert (stored(user).failure_count, stored(user).lease) == (0, None)
    assert (stored(user).access_token, stored(user).failure_count) == ("stored-token", 1)


def test_first_application_token_needs_no_row(airisk: World) -> None:
    with transaction.atomic():
        token = credential().token
        assert credential().token == token
        assert not AIRiskToken.objects.exists()
    assert stored().access_token == token
    assert len(token_requests(airisk)) == 1


def test_rollback_causes_no_second_renewal(airisk: World, mia: User) -> None:
    give_token(mia, ends_in=-60)
    tokens = []
    for _call in range(3):
        with rolled_back():
            tokens.append(credential(mia).token)
    assert stored(mia).access_token == "stored-token"
    tokens.append(credential(mia).token)
    assert set(tokens) == {stored(mia).access_token} != {"stored-token"}
    assert len(token_requests(airisk)) == 1


def test_rollback_causes_no_second_failing_call(airisk: World, mia: User) -> None:
    give_token(mia, ends_in=-60)
    airisk.switches.refuse = True
    errors = []
    for _call in range(3):
        with rolled_back():
            errors.append(result_or_error(partial(credential, mia)))
    assert stored(mia).failure_count == 0
    errors.append(result_or_error(partial(credential, mia)))
    assert len(set(map(str, errors))) == 1
    assert {type(error) for error in errors} == {ConnectionRequired}
    assert (stored(mia).access_token, stored(mia).failure_count) == ("stored-token", 1)
    assert len([seen for seen in airisk.journal if seen.endpoint == "/api/oauth2"]) == 1


def test_rollback_forgets_no_useless_renewal(airisk: World, mia: User) -> None:
    """A renewed token that AIRisk rejects, too, is remembered, so that not every call renews it."""
    give_token(mia)
    for _call in range(10):
        with rolled_back():
            bearer = BearerPolicy(conf.deployment(), mia)
            rejected = run(bearer.credential(BLOCKING))
            another = run(bearer.replacement(rejected.token, BLOCKING))
            if another is not None:
                run(bearer.note_replay(401, another, BLOCKING))
        unwritten.write()
    assert len(token_requests(airisk)) == 1
    assert stored(mia).refused_anew_at is not None


def test_receivers_run_after_the_callers_commit(airisk: World, mia: User) -> None:
    give_token(mia, ends_in=-60)
    seen: list[tuple[bool, str, int]] = []

    def receiver(**_arguments: Any) -> None:
        # What the caller has written can be written here, and the token is stored.
        User.objects.filter(pk=mia.pk).update(last_name="receiver")
        seen.append((connection.in_atomic_block, str(stored(mia).access_token), threading.get_ident()))

    token_renewed.connect(receiver)
    with transaction.atomic():
        User.objects.filter(pk=mia.pk).update(last_name="view")
        token = credential(mia).token
        assert not seen
    assert token_renewed.disconnect(receiver)
    assert seen == [(False, str(token), threading.get_ident())]


@pytest.mark.django_db(transaction=False)
@of_each_owner
def test_uncommitted_row_is_renewed_in_place(airisk: World, mia: User, is_user: bool) -> None:
    """As in a ``TestCase``: no other connection sees the row, so that nobody else can be in the way."""
    user = mia if is_user else None
    give_token(user, ends_in=-60)
    token = credential(user).token
    assert token == stored(user).access_token != "stored-token"
    assert renew_token(user) is True
    assert stored(user).access_token != token


# Several transactions


def test_concurrent_transactions_share_a_renewal(airisk: World, mia: User) -> None:
    give_token(mia, ends_in=-60)
    airisk.switches.latency = 0.2

    def call() -> str:
        with transaction.atomic():
            return str(credential(mia).token)

    assert set(in_threads(8, call)) == {str(stored(mia).access_token)}
    assert len(token_requests(airisk)) == 1


@not_on_sqlite
def test_crossing_transactions_do_not_block(airisk: World, mia: User) -> None:
    """Each needs the token that the other one has used, and waits for nothing that the other holds until it commits."""
    leo = User.objects.create_user("leo")
    AIRiskIdentity.objects.create(user=leo, userid="user_7")
    give_token(mia, ends_in=-60)
    give_token(leo, ends_in=-60, userid="user_7")
    orders, both_have_one = iter([(mia, leo), (leo, mia)]), threading.Barrier(2)

    def call() -> list[Secret]:
        first, second = next(orders)
        with transaction.atomic():
            tokens = [credential(first).token]
            both_have_one.wait(10)
            return [*tokens, credential(second).token]

    began = time.monotonic()
    answers = in_threads(2, call)
    assert time.monotonic() - began < 5
    assert not any(isinstance(answer, AIRiskError) for answer in answers)


def test_transaction_needs_no_second_connection(airisk: World, mia: User) -> None:
    give_token(mia, ends_in=-60)
    with signals_sent(connection_created) as opened, transaction.atomic():
        credential(mia)
    assert opened == []


@not_on_sqlite
def test_row_locked_elsewhere_delays_no_call(airisk: World, mia: User) -> None:
    give_token(mia, ends_in=200)
    with ThreadPoolExecutor(1) as pool, transaction.atomic():
        AIRiskToken.objects.select_for_update().get()
        found = pool.submit(attempt, partial(credential, mia)).result(timeout=5)
    assert not isinstance(found, AIRiskError)
    assert found.token == "stored-token"
    assert not airisk.journal


# A database that fails


@pytest.mark.parametrize("error", [OperationalError, InterfaceError])
def test_early_renewal_only_logs_a_database_error(
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


@pytest.mark.parametrize("statement", [1, 2], ids=["claiming", "saving"])
def test_locked_database_fails_no_call(airisk: World, mia: User, statement: int) -> None:
    """The token is written by the next call that can."""
    give_token(mia, ends_in=-60)
    updates = 0

    def locked(execute: Any, sql: str, *args: Any) -> Any:
        nonlocal updates
        updates += sql.startswith("UPDATE")
        if sql.startswith("UPDATE") and updates >= statement:
            raise OperationalError("database is locked")
        return execute(sql, *args)

    with connection.execute_wrapper(locked):
        tokens = {str(credential(mia).token) for _call in range(3)}
    assert len(token_requests(airisk)) == 1
    assert stored(mia).access_token == "stored-token"
    assert tokens == {str(credential(mia).token)} == {str(stored(mia).access_token)}


def call_after_losing_the_connection(user: User) -> Secret:
    with suppress(OperationalError):
        ask_server("end this connection")
    return credential(user).token


@not_on_sqlite
def test_lost_connection_is_opened_again(mia: User) -> None:
    give_token(mia)
    assert call_after_losing_the_connection(mia) == "stored-token"


@not_on_sqlite
def test_transaction_ends_with_a_lost_connection(mia: User) -> None:
    give_token(mia)
    with pytest.raises(OperationalError), transaction.atomic():
        call_after_losing_the_connection(mia)
