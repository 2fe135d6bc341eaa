"""Flows under way: each is used up once, and few are kept."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from airisk_oauth.models import KEEP_SPENT, MAX_PENDING, AIRiskToken, PendingAuthorization
from tests.support.browsing import connect
from tests.support.database import committing
from tests.support.rows import new_users
from tests.support.threads import at_once

pytestmark = pytest.mark.django_db

pendings = PendingAuthorization.objects


@pytest.fixture
def begin(mia: User) -> Callable[..., PendingAuthorization]:
    numbers: Iterator[int] = iter(range(1000))

    def begin(**values: Any) -> PendingAuthorization:
        started: PendingAuthorization = pendings.begin(
            **{"user": mia, "state_hash": f"{next(numbers):064}", "browser_hash": "b" * 64, **values}
        )
        return started

    return begin


Begin = Callable[..., PendingAuthorization]


def test_eleventh_pending_flow_drops_the_oldest(begin: Begin) -> None:
    assert MAX_PENDING == 10
    started = [begin(deployment=alias).pk for alias in ["default", "second"] * 7]
    assert sorted(pendings.values_list("pk", flat=True)) == started[4:]


def test_spent_and_foreign_flows_do_not_count(begin: Begin) -> None:
    [tom] = new_users(1)
    theirs = [begin(user=tom).pk for _ in range(5)]
    spent = [begin().pk for _ in range(5)]
    assert all(pendings.spend(pk) for pk in spent)
    mine = [begin().pk for _ in range(10)]
    assert set(pendings.values_list("pk", flat=True)) == {*theirs, *spent, *mine}
    begin()
    assert set(pendings.values_list("pk", flat=True)) >= {*theirs, *spent, *mine[1:]}
    assert not pendings.filter(pk=mine[0]).exists()


def test_thousand_starts_leave_ten_pending_flows(begin: Begin) -> None:
    for _ in range(1000):
        begin()
    assert pendings.count() == 10


def test_new_flow_drops_the_old_ones_of_everybody(begin: Begin) -> None:
    [tom] = new_users(1)
    now = timezone.now()
    rows = [begin(user=tom), begin(user=tom), begin(user=tom)]
    ages = [KEEP_SPENT * 1.1, KEEP_SPENT * 1.1, KEEP_SPENT * 0.9]
    for row, age in zip(rows, ages, strict=True):
        pendings.filter(pk=row.pk).update(created_at=now - age)
    pendings.spend(rows[0].pk)
    mine = begin()
    assert set(pendings.all()) == {rows[2], mine}


def test_flow_is_open_when_it_begins(begin: Begin) -> None:
    before = timezone.now()
    pending = pendings.get(pk=begin(next="/here/").pk)
    assert before <= pending.created_at <= timezone.now()
    assert (pending.spent_at, pending.outcome, pending.next) == (None, PendingAuthorization.Outcome.OPEN, "/here/")
    assert str(pending) == f"default, {pending.created_at:%Y-%m-%d %H:%M}"


@committing
@pytest.mark.usefixtures("airisk")
def test_connecting_costs_few_statements(browser: Client) -> None:
    """Four of them are Django's own: at either end it reads the session and the user."""
    with CaptureQueriesContext(connection) as queries:
        assert connect(browser).status_code == 302
    assert AIRiskToken.objects.count() == 1
    assert len(queries) <= 13, [query["sql"] for query in queries]


def test_state_is_never_used_by_two_flows(begin: Begin) -> None:
    begin(state_hash="a" * 64)
    with pytest.raises(IntegrityError), transaction.atomic():
        begin(state_hash="a" * 64)


def test_flow_can_be_spent_only_once(begin: Begin) -> None:
    pending, other = begin(), begin()
    assert [pendings.spend(pending.pk) for _ in range(3)] == [True, False, False]
    assert pendings.get(pk=pending.pk).spent_at is not None
    assert pendings.get(pk=other.pk).spent_at is None
    assert pendings.spend(0) is False


@committing
def test_flow_is_spent_by_one_of_many_at_once(begin: Begin) -> None:
    pending = begin()
    assert sorted(at_once(*[lambda: pendings.spend(pending.pk)] * 8)) == [False] * 7 + [True]
