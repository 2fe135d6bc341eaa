"""What could not be written yet, and a database that is in the way."""

import threading
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
from airisk_oauth.tokens.stored import APPLICATION
from airisk_oauth.tokens.turns import turn
from airisk_oauth.tokens.waiting import NON_BLOCKING
from tests.support.people import credential, give_token, stored, stored_token, token_requests

pytestmark = pytest.mark.django_db(transaction=True)


class SerializationFailure(Exception):
    sqlstate = "40001"


def conflicts(times: int, cause: Exception) -> tuple[Any, list[None]]:
    """Return work that another transaction gets in the way of so many times, and what it has tried."""
    tries: list[None] = []

    def work() -> int:
        tries.append(None)
        if len(tries) <= times:
            raise OperationalError(*cause.args) from cause
        return len(tries)

    return work, tries


@pytest.mark.parametrize("cause", [SerializationFailure(), Exception(1213, "Deadlock found")], ids=repr)
def test_conflict_is_tried_again_outside_transactions(cause: Exception) -> None:
    work, tries = conflicts(2, cause)
    assert retrying("default", work) == 3
    work, tries = conflicts(TRIES, cause)
    with pytest.raises(OperationalError):
        retrying("default", work)
    assert len(tries) == TRIES
    work, tries = conflicts(1, cause)
    with pytest.raises(OperationalError), transaction.atomic():
        retrying("default", work)
    assert len(tries) == 1


def test_other_errors_of_the_database_are_not_tried_again() -> None:
    work, tries = conflicts(1, Exception("the disk is full"))
    with pytest.raises(OperationalError):
        retrying("default", work)
    connection.ensure_connection()
    connection.close_at = None
    with pytest.raises(DatabaseError):
        reconnecting("default", lambda: connection.cursor().execute("SELECT nothing FROM nowhere"))
    assert len(tries) == 1


def test_closed_connection_is_opened_for_a_second_look() -> None:
    def look() -> str:
        if connection.connection is not None:
            # As the driver finds it: closed by the other side.
            connection.connection.close()
            connection.errors_occurred = True
            raise OperationalError("the connection was closed")
        return "seen"

    connection.ensure_connection()
    assert reconnecting("default", look) == "seen"


def test_who_read_the_row_just_before_finds_what_is_on_it(airisk: World, mia: User) -> None:
    give_token(mia, ends_in=-60)
    before = stored(mia)
    with transaction.atomic():
        token = credential(mia).token
    assert unwritten.applied(before, conf.deployment(), "default").access_token == token
    assert not unwritten.anything()


def test_what_is_disconnected_meanwhile_is_not_revived(airisk: World, mia: User) -> None:
    give_token(mia, ends_in=-60)
    with transaction.atomic():
        credential(mia)
        flow.disconnect(stored(mia))
    assert not AIRiskToken.objects.exists()
    assert not unwritten.anything()


def test_asynchronous_code_in_a_transaction_renews_too(airisk: World, mia: User) -> None:
    give_token(mia, ends_in=-60)
    with transaction.atomic():
        access = async_to_sync(Renewal(stored_token(mia), NON_BLOCKING).credential)()
        assert stored(mia).access_token == "stored-token"
    assert stored(mia).access_token == access.token != "stored-token"


def test_what_is_kept_is_bounded_in_time_and_number(mia: User, monkeypatch: pytest.MonkeyPatch) -> None:
    token, long_ago = give_token(mia), timezone.now() - unwritten.KEEP - timedelta(seconds=1)
    with monkeypatch.context() as clock:
        clock.setattr(timezone, "now", lambda: long_ago)
        unwritten.keep(token.sealed, token, {"failure_count": 7}, "default")
    assert unwritten.applied(stored(mia), conf.deployment(), "default").failure_count == 0
    for number in range(unwritten.MOST + 5):
        unwritten.keep(f"sealed-{number}", token, {"failure_count": 1}, "default")
    assert len(unwritten._entries) <= unwritten.MOST
    assert token.sealed not in unwritten._entries
    unwritten.forget_all()
    assert not unwritten.anything()


def refused_for_lack_of_an_answer(airisk: World) -> None:
    """As a site's own test leaves it: a failure noted in a transaction that its ``TestCase`` undoes."""
    airisk.switches.outage = True
    test = transaction.atomic()
    test._from_testcase = True  # type: ignore[attr-defined]
    with test, pytest.raises(AIRiskUnavailable), transaction.atomic():
        credential()
    airisk.switches.outage = False


def test_one_test_of_a_site_leaves_nothing_to_the_next(airisk: World) -> None:
    refused_for_lack_of_an_answer(airisk)
    unwritten.write()
    assert not unwritten.anything()
    assert credential().token
    AIRiskToken.objects.all().delete()
    refused_for_lack_of_an_answer(airisk)
    with transaction.atomic():
        assert credential().token


def test_each_renewal_is_told_of_once(airisk: World, mia: User) -> None:
    give_token(mia, ends_in=-60, last_used_at=timezone.now() - timedelta(days=1))
    told: list[Any] = []

    def note(**given: Any) -> None:
        told.append(given["user_id"])
        # As a receiver that calls AIRisk by itself.
        credential(mia)
        unwritten.write()

    token_renewed.connect(note)
    with transaction.atomic():
        for _call in range(3):
            credential(mia)
    assert token_renewed.disconnect(note)
    assert told == [mia.pk]
    assert len(token_requests(airisk)) == 1


def test_what_is_learned_while_writing_is_written_too(mia: User) -> None:
    token = give_token(mia)
    told: list[str] = []

    def meanwhile(execute: Any, sql: str, *args: Any) -> Any:
        answer = execute(sql, *args)
        if sql.startswith("UPDATE") and not told:
            told.append("first")
            unwritten.keep(token.sealed, token, {"failure_count": 2}, "default", lambda _row: told.append("second"))
        return answer

    unwritten.keep(token.sealed, token, {"failure_count": 1}, "default")
    with connection.execute_wrapper(meanwhile):
        unwritten.write()
    assert told == ["first"]
    unwritten.write()
    assert (told, stored(mia).failure_count) == (["first", "second"], 2)


def test_what_never_can_be_written_holds_nobody_up(mia: User, caplog: pytest.LogCaptureFixture) -> None:
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
    # What is no matter of the database is not tried again.
    assert len(caplog.records) == unwritten.TRIES + 1


@pytest.mark.skipif(connection.vendor != "postgresql", reason="only PostgreSQL has schemas")
def test_no_row_is_made_in_another_tenants_schema(airisk: World) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA IF NOT EXISTS acme")
        cursor.execute("SET LOCAL search_path TO acme, public")
        acmes = credential().token
        assert credential().token == acmes
    assert not AIRiskToken.objects.exists()
    assert credential().token == stored().access_token != acmes


def test_a_site_that_commits_by_itself_is_in_a_transaction(airisk: World, mia: User) -> None:
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


def test_early_renewal_of_what_the_view_deleted_is_quiet(
    airisk: World, mia: User, caplog: pytest.LogCaptureFixture
) -> None:
    give_token(mia, ends_in=100)
    with transaction.atomic():
        credential(mia)
        flow.disconnect(stored(mia))
    assert [record.name for record in caplog.records if record.levelname == "ERROR"] == []
    assert not airisk.journal


def test_turns_are_waited_for_so_long_and_no_longer() -> None:
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


def test_the_application_is_named_in_tracebacks() -> None:
    assert repr(APPLICATION) == "the application"
