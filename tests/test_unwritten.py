"""What could not be written yet, and a database that is in the way."""

import threading
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.db import DatabaseError, OperationalError, connection, transaction
from django.utils import timezone

from airisk_oauth import conf, flow, unwritten
from airisk_oauth.database import TRIES, reconnecting, retrying
from airisk_oauth.effects import arun
from airisk_oauth.models import AIRiskToken
from airisk_oauth.renewal import APPLICATION, TokenKeeper
from airisk_oauth.sandbox.world import World
from tests.flows import give_token, stored

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


def test_what_is_disconnected_meanwhile_is_not_revived(airisk: World, mia: User) -> None:
    give_token(mia, ends_in=-60)
    with transaction.atomic():
        TokenKeeper(conf.deployment(), mia).access()
        flow.disconnect(stored(mia))
    assert not AIRiskToken.objects.exists()
    assert not unwritten.anything()


def test_asynchronous_code_in_a_transaction_renews_too(airisk: World, mia: User) -> None:
    give_token(mia, ends_in=-60)
    with transaction.atomic():
        access = async_to_sync(arun)(TokenKeeper(conf.deployment(), mia).accessing())
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


def test_turns_are_waited_for_so_long_and_no_longer() -> None:
    inside, done = threading.Event(), threading.Event()

    def hold() -> None:
        with unwritten.turn("key", 10):
            inside.set()
            done.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    assert inside.wait(10)
    with unwritten.turn("key", 0.01):
        done.set()
    holder.join()


def test_the_application_is_named_in_tracebacks() -> None:
    assert repr(APPLICATION) == "the application"
