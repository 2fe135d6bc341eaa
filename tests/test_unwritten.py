"""Changes that could not be written yet, and a database that conflicts, fails or closes connections."""

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.db import DatabaseError, OperationalError, connection, connections, transaction
from django.utils import timezone

from airisk_oauth import conf
from airisk_oauth.connecting import flow
from airisk_oauth.database.transactions import TRIES, reconnecting, retrying
from airisk_oauth.exceptions import AIRiskUnavailable
from airisk_oauth.models import AIRiskToken
from airisk_oauth.sandbox.world import World
from airisk_oauth.signals import token_renewed
from airisk_oauth.tokens import unwritten
from airisk_oauth.tokens.renewal import Renewal
from airisk_oauth.tokens.turns import turn
from airisk_oauth.tokens.waiting import NON_BLOCKING
from tests.support.database import ask_server
from tests.support.people import credential, give_token, stored, stored_token, token_requests

pytestmark = pytest.mark.django_db(transaction=True)


# Conflicts, and connections that were closed


class SerializationFailure(Exception):
    sqlstate = "40001"


of_each_database = pytest.mark.parametrize(
    "cause", [SerializationFailure(), Exception(1213, "Deadlock found")], ids=["PostgreSQL", "MySQL"]
)


def conflicts(times: int, cause: Exception) -> tuple[Callable[[], int], list[None]]:
    """Return work that another transaction conflicts with this number of times, and a list of its attempts.

    The work returns the number of attempts.
    """
    attempts: list[None] = []

    def work() -> int:
        attempts.append(None)
        if len(attempts) <= times:
            raise OperationalError(*cause.args) from cause
        return len(attempts)

    return work, attempts


@of_each_database
def test_conflict_is_retried_until_it_is_resolved(cause: Exception) -> None:
    work, _attempts = conflicts(2, cause)
    assert retrying("default", work) == 3


@of_each_database
def test_conflict_is_retried_a_few_times_only(cause: Exception) -> None:
    work, attempts = conflicts(TRIES, cause)
    with pytest.raises(OperationalError):
        retrying("default", work)
    assert len(attempts) == TRIES


@of_each_database
def test_conflict_in_a_transaction_is_not_retried(cause: Exception) -> None:
    work, attempts = conflicts(1, cause)
    with pytest.raises(OperationalError), transaction.atomic():
        retrying("default", work)
    assert len(attempts) == 1


def test_other_database_errors_are_not_retried() -> None:
    work, attempts = conflicts(1, Exception("the disk is full"))
    with pytest.raises(OperationalError):
        retrying("default", work)
    assert len(attempts) == 1


def test_wrong_query_is_not_repeated() -> None:
    connection.ensure_connection()
    connection.close_at = None
    with pytest.raises(DatabaseError):
        reconnecting("default", lambda: connection.cursor().execute("SELECT nothing FROM nowhere"))


def test_closed_connection_is_opened_again() -> None:
    def look() -> str:
        if connection.connection is None:
            return "seen"
        if connection.vendor == "sqlite":
            connection.connection.close()
        else:
            with suppress(OperationalError):
                ask_server("end this connection")
        connection.errors_occurred = True
        raise OperationalError("the connection was closed")

    connection.ensure_connection()
    assert reconnecting("default", look) == "seen"


# Tokens that were renewed in a transaction


def test_earlier_copy_of_a_row_gets_the_new_token(airisk: World, mia: User) -> None:
    give_token(mia, ends_in=-60)
    before = stored(mia)
    with transaction.atomic():
        token = credential(mia).token
    assert unwritten.applied(before, conf.deployment(), "default").access_token == token
    assert not unwritten.anything()


def test_disconnecting_removes_an_unwritten_token(airisk: World, mia: User) -> None:
    give_token(mia, ends_in=-60)
    with transaction.atomic():
        credential(mia)
        flow.disconnect(stored(mia))
    assert not AIRiskToken.objects.exists()
    assert not unwritten.anything()


def test_async_code_in_a_transaction_renews_too(airisk: World, mia: User) -> None:
    give_token(mia, ends_in=-60)
    with transaction.atomic():
        renewed = async_to_sync(Renewal(stored_token(mia), NON_BLOCKING).credential)()
        assert stored(mia).access_token == "stored-token"
    assert stored(mia).access_token == renewed.token != "stored-token"


def test_unwritten_values_expire(mia: User, monkeypatch: pytest.MonkeyPatch) -> None:
    token, long_ago = give_token(mia), timezone.now() - unwritten.KEEP - timedelta(seconds=1)
    with monkeypatch.context() as clock:
        clock.setattr(timezone, "now", lambda: long_ago)
        unwritten.keep(token.sealed, token, {"failure_count": 7}, "default")
    assert unwritten.applied(stored(mia), conf.deployment(), "default").failure_count == 0
    assert not unwritten.anything()


def test_number_of_unwritten_values_is_limited(mia: User, monkeypatch: pytest.MonkeyPatch) -> None:
    token, long_ago = give_token(mia), timezone.now() - unwritten.KEEP - timedelta(seconds=1)
    with monkeypatch.context() as clock:
        clock.setattr(timezone, "now", lambda: long_ago)
        unwritten.keep(token.sealed, token, {"failure_count": 7}, "default")
    for number in range(unwritten.MOST + 5):
        unwritten.keep(f"sealed-{number}", token, {"failure_count": 1}, "default")
    assert len(unwritten._entries) <= unwritten.MOST
    assert token.sealed not in unwritten._entries
    unwritten.forget_all()
    assert not unwritten.anything()


def run_test_of_a_site(airisk: World) -> None:
    """Let a call fail inside a ``TestCase``, which undoes all that was written."""
    airisk.switches.outage = True
    test = transaction.atomic()
    test._from_testcase = True  # type: ignore[attr-defined]
    with test, pytest.raises(AIRiskUnavailable), transaction.atomic():
        credential()
    airisk.switches.outage = False


def test_tests_of_a_site_leave_each_other_nothing(airisk: World) -> None:
    run_test_of_a_site(airisk)
    unwritten.write()
    assert not unwritten.anything()
    assert credential().token
    AIRiskToken.objects.all().delete()
    run_test_of_a_site(airisk)
    with transaction.atomic():
        assert credential().token


def test_signal_is_sent_once_for_each_renewal(airisk: World, mia: User) -> None:
    give_token(mia, ends_in=-60, last_used_at=timezone.now() - timedelta(days=1))
    renewed: list[Any] = []

    def receiver(**arguments: Any) -> None:
        renewed.append(arguments["user_id"])
        # A receiver may call AIRisk, too.
        credential(mia)
        unwritten.write()

    token_renewed.connect(receiver)
    with transaction.atomic():
        for _call in range(3):
            credential(mia)
    assert token_renewed.disconnect(receiver)
    assert renewed == [mia.pk]
    assert len(token_requests(airisk)) == 1


def test_value_kept_while_writing_is_written_too(mia: User) -> None:
    token = give_token(mia)
    announced: list[str] = []

    def meanwhile(execute: Any, sql: str, *args: Any) -> Any:
        result = execute(sql, *args)
        if sql.startswith("UPDATE") and not announced:
            announced.append("first")
            second = {"failure_count": 2}
            unwritten.keep(token.sealed, token, second, "default", lambda _row: announced.append("second"))
        return result

    unwritten.keep(token.sealed, token, {"failure_count": 1}, "default")
    with connection.execute_wrapper(meanwhile):
        unwritten.write()
    assert announced == ["first"]
    unwritten.write()
    assert (announced, stored(mia).failure_count) == (["first", "second"], 2)


def test_unwritable_values_are_dropped(mia: User, caplog: pytest.LogCaptureFixture) -> None:
    token = give_token(mia)
    connections.settings["gone"] = connection.settings_dict
    unwritten.keep("sealed-1", token, {"failure_count": 1}, "gone")
    del connections.settings["gone"], connections["gone"]
    unwritten.keep("sealed-2", token, {"nothing": 1}, "default")
    unwritten.keep("sealed-3", token, {"failure_count": 3}, "default")

    def read_only(_execute: Any, _sql: str, *_args: Any) -> Any:
        raise OperationalError("read-only")

    with connection.execute_wrapper(read_only):
        for _page in range(unwritten.TRIES + 2):
            unwritten.write()
    assert not unwritten.anything()
    # An error that is not the database's is not retried.
    assert len(caplog.records) == unwritten.TRIES + 1


@pytest.mark.skipif(connection.vendor != "postgresql", reason="only PostgreSQL has schemas")
def test_no_row_is_put_in_another_tenants_schema(airisk: World) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA IF NOT EXISTS acme")
        cursor.execute("SET LOCAL search_path TO acme, public")
        token_of_acme = credential().token
        assert credential().token == token_of_acme
    assert not AIRiskToken.objects.exists()
    assert credential().token == stored().access_token != token_of_acme


def test_caller_without_autocommit_can_roll_back(airisk: World, mia: User) -> None:
    """A site that switches autocommit off is always in a transaction."""
    give_token(mia, ends_in=-60)
    give_token(None, ends_in=100)
    transaction.set_autocommit(False)
    try:
        tokens = {str(credential(mia).token) for _call in range(2)}
        assert credential().token == "stored-token"
        transaction.rollback()
    finally:
        transaction.set_autocommit(True)
    assert tokens == {str(credential(mia).token)} == {str(stored(mia).access_token)}


def test_early_renewal_ignores_a_deleted_token(airisk: World, mia: User, caplog: pytest.LogCaptureFixture) -> None:
    give_token(mia, ends_in=100)
    with transaction.atomic():
        credential(mia)
        flow.disconnect(stored(mia))
    assert [record.name for record in caplog.records if record.levelname == "ERROR"] == []
    assert not airisk.journal


def test_waiting_for_a_turn_has_a_time_limit() -> None:
    inside, done = threading.Event(), threading.Event()

    def hold() -> None:
        with turn("key", 10):
            inside.set()
            done.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    assert inside.wait(10)
    with turn("key", 0.01):
        done.set()
    holder.join()
