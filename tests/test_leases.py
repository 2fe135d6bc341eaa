"""A row is leased by one process at a time, saved while its lease is held, and replaced by whoever connects."""

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from airisk_oauth.database.failures import NO_FAILURE
from airisk_oauth.exceptions import (
    AIRiskError,
    AIRiskInvalidResponse,
    AIRiskRefused,
    AIRiskUnavailable,
    ConnectionRequired,
)
from airisk_oauth.models import AIRiskToken
from airisk_oauth.tokens import leases
from airisk_oauth.tokens.leases import save_and_release
from airisk_oauth.tokens.outcomes import store
from tests.support.database import committing
from tests.support.people import give_token
from tests.support.rows import as_stored, new_grant, new_users, pks
from tests.support.threads import at_once

NOW = datetime.fromisoformat("2025-03-31T12:00:00+00:00")
HOUR = timedelta(hours=1)
#: The columns of an issued token.
ISSUED = ("sealed", "key_id", "origin", "expires_at", "renewed_at")
FAILURES: list[AIRiskError] = [
    AIRiskRefused(401, "Unauthorized", "00-1"),
    AIRiskRefused(302),
    AIRiskUnavailable("Down."),
    AIRiskInvalidResponse("Odd."),
    ConnectionRequired("Connect.", deployment="second"),
]

pytestmark = pytest.mark.django_db

tokens = AIRiskToken.objects


def claim(lease: UUID, *rows: AIRiskToken, **options: Any) -> list[AIRiskToken]:
    chosen = tokens.filter(pk__in=[row.pk for row in rows]).order_by("pk")
    return leases.claim(chosen, lease, **{"now": timezone.now(), "seconds": 60, **options})


# Connecting


def test_connecting_stores_one_row_per_owner(mia: User) -> None:
    for user_id, userid in ((mia.pk, "user_42"), (None, "")):
        for brought in ("first", "second"):
            stored = store(user_id, "default", userid, new_grant(brought))
            assert as_stored(stored).access_token == stored.access_token == brought
            assert (stored.user_id, stored.userid) == (user_id, userid)
    assert tokens.count() == 2


def test_connecting_replaces_failures_and_lease(mia: User) -> None:
    old = give_token(mia, userid="user_41", obtained_at=NOW, last_used_at=NOW, renewed_at=NOW)
    old.record_failure(FAILURES[0], NOW)
    old.save()
    claim(uuid4(), old)
    before = timezone.now()
    store(mia.pk, "default", "user_42", new_grant(expires_in=None))
    new, fresh = as_stored(old), AIRiskToken()
    assert (new.access_token, new.userid, new.expires_at) == ("new-token", "user_42", None)
    assert all(moment >= before for moment in (new.obtained_at, new.last_used_at, new.renewed_at))
    assert (new.lease, new.lease_until) == (None, None)
    assert [getattr(new, name) for name in NO_FAILURE] == [getattr(fresh, name) for name in NO_FAILURE]


@committing
def test_connecting_twice_at_once_leaves_one_row(mia: User) -> None:
    at_once(*[lambda: store(mia.pk, "default", "user_42", new_grant())] * 4)
    assert tokens.get().access_token == "new-token"


# Claiming


def test_claim_leases_rows_for_the_given_seconds(mia: User) -> None:
    token, other, lease, now = give_token(mia), give_token(None), uuid4(), timezone.now()
    [claimed] = claim(lease, token, now=now, seconds=90)
    assert (claimed.pk, claimed.access_token) == (token.pk, "stored-token")
    row = as_stored(token)
    assert (row.lease, row.lease_until) == (lease, now + timedelta(seconds=90))
    assert as_stored(other).lease is None


def test_claim_skips_leases_until_they_expire() -> None:
    now = timezone.now()
    rows = [give_token(user) for user in new_users(3)]
    leased, lapsed, free = rows
    first, second = uuid4(), uuid4()
    assert pks(claim(first, leased, now=now, seconds=60)) == {leased.pk}
    assert pks(claim(first, lapsed, now=now, seconds=-1)) == {lapsed.pk}
    assert pks(claim(second, *rows, now=now)) == {lapsed.pk, free.pk}
    assert claim(uuid4(), *rows, now=now) == []
    assert {row.pk: row.lease for row in tokens.all()} == {leased.pk: first, lapsed.pk: second, free.pk: second}


def test_claim_takes_the_first_rows_in_order() -> None:
    rows = [give_token(user, ends_in=3600 - number) for number, user in enumerate(new_users(5))]
    lease = uuid4()
    taken = leases.claim(tokens.order_by("expires_at"), lease, now=timezone.now(), seconds=60, limit=2)
    assert [token.pk for token in taken] == [rows[4].pk, rows[3].pk]
    assert pks(list(tokens.filter(lease=lease))) == pks(taken)
    other = leases.claim(tokens.order_by("expires_at"), uuid4(), now=timezone.now(), seconds=60, limit=2)
    assert [token.pk for token in other] == [rows[2].pk, rows[1].pk]
    # As after a connection that broke before it brought the answer.
    again = leases.claim(tokens.order_by("expires_at"), lease, now=timezone.now(), seconds=60, limit=2)
    assert [token.pk for token in again] == [rows[4].pk, rows[3].pk]


def test_claim_of_no_rows_returns_none() -> None:
    assert claim(uuid4()) == []


@committing
def test_rows_claimed_at_once_are_leased_to_one() -> None:
    rows = [give_token(user) for user in new_users(20)]
    first, second, third = at_once(*[lambda: pks(claim(uuid4(), *random.sample(rows, 20)))] * 3)
    assert first | second | third == pks(rows)
    assert len(first) + len(second) + len(third) == 20


@committing
def test_row_that_two_have_read_is_leased_to_one() -> None:
    rows = [give_token(user) for user in new_users(2)]
    theirs: list[set[Any]] = []

    def meanwhile(execute: Callable[..., Any], sql: str, *args: Any) -> Any:
        """Just before the first row is leased, somebody else tries to."""
        if sql.startswith("UPDATE") and not theirs:
            theirs.append(set())
            theirs[0].update(*at_once(lambda: pks(claim(uuid4(), *rows))))
        return execute(sql, *args)

    with connection.execute_wrapper(meanwhile):
        mine = pks(claim(uuid4(), *rows))
    assert (mine | theirs[0], mine & theirs[0]) == (pks(rows), set())


@committing
def test_claims_at_once_take_different_pages() -> None:
    """One that has locked its page, and not yet leased it, hides no other rows from the next."""
    rows = [give_token(user) for user in new_users(6)]
    theirs: list[set[Any]] = []

    def claim_page() -> set[Any]:
        page = tokens.order_by("expires_at")
        return pks(leases.claim(page, uuid4(), now=timezone.now(), seconds=60, limit=2))

    def meanwhile(execute: Callable[..., Any], sql: str, *args: Any) -> Any:
        if sql.startswith("UPDATE") and not theirs:
            theirs.append(set())
            theirs[0].update(*at_once(claim_page))
        return execute(sql, *args)

    with connection.execute_wrapper(meanwhile):
        mine = claim_page()
    assert (len(mine), len(theirs[0]), len(mine | theirs[0])) == (2, 2, 4)
    assert mine | theirs[0] < pks(rows)


@committing
@pytest.mark.parametrize("limit", [None, 2, 1])
def test_claim_skips_a_row_that_is_being_changed(limit: int | None) -> None:
    held, free = (give_token(user) for user in new_users(2))
    can_pass = connection.features.has_select_for_update_skip_locked
    begun, done = threading.Event(), threading.Event()

    def somebody() -> None:
        with transaction.atomic():
            tokens.filter(pk=held.pk).update(lease=uuid4(), lease_until=timezone.now() + timedelta(seconds=20))
            begun.set()
            done.wait(10 if can_pass else 0.3)
        connection.close()

    with ThreadPoolExecutor(1) as pool:
        change = pool.submit(somebody)
        assert begun.wait(10)
        claimed = claim(uuid4(), held, free, limit=limit)
        passed_by = not change.done()
        done.set()
    assert change.exception() is None
    assert pks(claimed) == {free.pk}
    assert passed_by is can_pass


def test_saving_writes_changes_and_releases_rows() -> None:
    rows = [give_token(user) for user in new_users(3)]
    lease, now = uuid4(), timezone.now()
    claimed = claim(lease, *rows)
    for number, token in enumerate(claimed):
        token.apply(new_grant(f"token-{number}", None if number else HOUR), now)
        token.last_used_at = NOW
    assert save_and_release(claimed, lease, ISSUED) == claimed
    written = list(tokens.order_by("pk"))
    assert [token.access_token for token in written] == ["token-0", "token-1", "token-2"]
    assert [token.expires_at for token in written] == [claimed[0].expires_at, None, None]
    assert all((token.renewed_at, token.lease, token.lease_until) == (now, None, None) for token in written)
    assert all(token.last_used_at != NOW for token in written)


def test_saving_writes_each_failure_to_its_row() -> None:
    lease = uuid4()
    claimed = claim(lease, *(give_token(user) for user in new_users(len(FAILURES))))
    for number, (token, error) in enumerate(zip(claimed, FAILURES, strict=True)):
        token.failure_count = number
        token.record_failure(error, NOW + number * HOUR)
    assert save_and_release(claimed, lease, NO_FAILURE) == claimed
    for token in claimed:
        row = as_stored(token)
        assert [getattr(row, name) for name in NO_FAILURE] == [getattr(token, name) for name in NO_FAILURE]


def queries_to_save(number: int) -> int:
    """Lease and save so many rows, and return how many queries saving them took."""
    lease = uuid4()
    claimed = claim(lease, *(give_token(None, deployment=f"deployment-{each}") for each in range(number)))
    assert len(claimed) == number
    for token in claimed:
        token.apply(new_grant(), NOW)
    with CaptureQueriesContext(connection) as queries:
        assert save_and_release(claimed, lease, (*ISSUED, *NO_FAILURE)) == claimed
    tokens.all().delete()
    return len(queries)


def test_saving_many_rows_takes_no_more_queries() -> None:
    assert save_and_release([], uuid4()) == []
    assert queries_to_save(2) == queries_to_save(20) <= 4


def leased_elsewhere(row: AIRiskToken) -> None:
    assert pks(claim(ELSEWHERE, row)) == {row.pk}


def connected(row: AIRiskToken) -> None:
    store(row.user_id, "default", "user_42", new_grant("connected"))


def disconnected(row: AIRiskToken) -> None:
    tokens.filter(pk=row.pk).delete()


def released(row: AIRiskToken) -> None:
    leased = as_stored(row)
    assert leased.lease is not None
    assert save_and_release([leased], leased.lease) == [leased]


ELSEWHERE = UUID(int=1)


@pytest.mark.parametrize("lose", [leased_elsewhere, connected, disconnected, released])
def test_saving_leaves_a_row_that_lost_its_lease(lose: Callable[[AIRiskToken], None]) -> None:
    kept, lost = (give_token(user) for user in new_users(2))
    lease = uuid4()
    claimed = claim(lease, kept, lost, seconds=-1)
    lose(lost)
    before = list(tokens.filter(pk=lost.pk).values())
    for token in claimed:
        token.apply(new_grant("too late"), timezone.now())
    assert pks(save_and_release(claimed, lease, ISSUED)) == {kept.pk}
    assert list(tokens.filter(pk=lost.pk).values()) == before
    assert as_stored(kept).access_token == "too late"
    assert as_stored(kept).lease is None


def test_saving_without_any_lease_writes_nothing() -> None:
    rows = [give_token(user) for user in new_users(2)]
    claimed = claim(uuid4(), *rows)
    for token in claimed:
        token.apply(new_grant("too late"), timezone.now())
    assert save_and_release(claimed, uuid4(), ISSUED) == []
    assert {token.access_token for token in tokens.all()} == {"stored-token"}
    assert not tokens.filter(lease=None).exists()
