"""The rows: one token an owner, under seal; leased, settled and failed in order; a started flow used up once."""

import pickle
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import pytest
from django.contrib.auth.models import User
from django.core import serializers
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction
from django.db.migrations.executor import MigrationExecutor
from django.forms import model_to_dict
from django.utils import timezone

from airisk_oauth import conf
from airisk_oauth.database.expiry import SKEW
from airisk_oauth.database.failures import COOL_DOWN, MAX_COOL_DOWN, NO_FAILURE
from airisk_oauth.exceptions import (
    AIRiskError,
    AIRiskInvalidResponse,
    AIRiskRefused,
    AIRiskUnavailable,
    ConnectionRequired,
)
from airisk_oauth.models import KEEP_SPENT, MAX_PENDING, AIRiskIdentity, AIRiskToken, PendingAuthorization
from airisk_oauth.oauth.messages import Secret, TokenGrant
from airisk_oauth.sealing import Unreadable
from airisk_oauth.tokens import leases
from airisk_oauth.tokens.leases import save_and_release
from airisk_oauth.tokens.outcomes import store
from tests.support.people import give_token
from tests.support.threads import at_once

if TYPE_CHECKING:
    from pytest_django import DjangoAssertNumQueries, Settings

TOKEN = "canary-token"
NOW = datetime.fromisoformat("2025-03-31T12:00:00+00:00")
#: The columns of an issued token.
ISSUED = ("sealed", "key_id", "origin", "expires_at", "renewed_at")
HOUR = timedelta(hours=1)
SEALED: dict[str, Any] = {"access_token": TOKEN}

pytestmark = pytest.mark.django_db
concurrently = pytest.mark.django_db(transaction=True)

tokens = AIRiskToken.objects
pendings = PendingAuthorization.objects


def grant(token: str = "new-token", ends: timedelta | None = HOUR) -> TokenGrant:
    return TokenGrant(Secret(token), None if ends is None else timezone.now() + ends)


def users(number: int) -> list[User]:
    return [User.objects.create_user(f"user-{number}") for number in range(number)]


def claim(lease: UUID, *rows: AIRiskToken, **options: Any) -> list[AIRiskToken]:
    chosen = tokens.filter(pk__in=[row.pk for row in rows]).order_by("pk")
    return leases.claim(chosen, lease, **{"now": timezone.now(), "seconds": 60, **options})


def pks(rows: list[AIRiskToken]) -> set[Any]:
    return {row.pk for row in rows}


def as_stored(row: AIRiskToken) -> AIRiskToken:
    found: AIRiskToken = tokens.get(pk=row.pk)
    return found


class _Replica:
    """A router that reads elsewhere than it writes."""

    def db_for_read(self, model: object, **hints: object) -> str:
        return "replica"

    def db_for_write(self, model: object, **hints: object) -> str:
        return "default"


def test_the_migrations_say_what_the_models_say() -> None:
    call_command("makemigrations", "airisk_oauth", check=True, dry_run=True, verbosity=0)


# One row an owner


@pytest.mark.parametrize("deployment", ["default", "second"])
def test_a_user_has_one_token_a_deployment(mia: User, deployment: str) -> None:
    [tom] = users(1)
    for user, alias in ((mia, "default"), (mia, "second"), (tom, "default"), (None, "default"), (None, "second")):
        give_token(user, deployment=alias)
    with pytest.raises(IntegrityError), transaction.atomic():
        give_token(mia, deployment=deployment)
    assert tokens.count() == 5


@pytest.mark.parametrize("deployment", ["default", "second"])
def test_the_application_has_one_token_a_deployment(deployment: str) -> None:
    give_token(None, deployment="default")
    give_token(None, deployment="second")
    with pytest.raises(IntegrityError), transaction.atomic():
        tokens.bulk_create([AIRiskToken(deployment=deployment, **SEALED)])
    assert tokens.filter(user=None).count() == 2


def test_a_user_is_one_person_a_deployment(mia: User) -> None:
    AIRiskIdentity.objects.create(user=mia, deployment="second", userid="user_7")
    with pytest.raises(IntegrityError), transaction.atomic():
        AIRiskIdentity.objects.create(user=mia, userid="user_43")
    assert str(AIRiskIdentity.objects.get(deployment="second")) == "user_7 (second)"


@pytest.mark.parametrize("userid", ["", " user_42", "user_42\n", "a\0", "x" * 256])
def test_staff_cannot_enter_what_cannot_be_a_userid(mia: User, userid: str) -> None:
    with pytest.raises(ValidationError, match="userid"):
        AIRiskIdentity(user=mia, deployment="second", userid=userid).full_clean()
    AIRiskIdentity(user=mia, deployment="second", userid="user 42").full_clean()


def test_a_users_rows_go_with_the_user_and_no_others(mia: User) -> None:
    give_token(mia)
    give_token(None)
    pendings.begin(user=mia, state_hash="1", browser_hash="b")
    mia.delete()
    assert [token.user for token in tokens.all()] == [None]
    assert not AIRiskIdentity.objects.exists()
    assert not pendings.exists()


def test_a_token_is_found_by_its_owner(mia: User) -> None:
    hers, ours = give_token(mia), give_token(None)
    give_token(mia, deployment="second")
    assert tokens.owned_by(mia.pk, "default").get() == hers
    assert tokens.of_application("default").get() == ours
    assert not tokens.of_application("second").exists()
    # Nobody, or a user who was not saved, is not the application.
    assert not tokens.owned_by(None, "default").exists()


def test_a_token_is_called_by_its_owners_name(mia: User) -> None:
    assert str(give_token(mia)) == "user_42 (default)"
    assert str(give_token(None, deployment="second")) == "the application (second)"


def test_rows_are_read_where_they_are_written(settings: "Settings") -> None:
    settings.DATABASE_ROUTERS = [_Replica()]
    for objects in (AIRiskIdentity.objects, tokens, pendings):
        assert objects.all().db == "replica"
        assert objects.primary().db == "default"


# The token under seal


@pytest.fixture(params=["save", "create", "bulk_create", "bulk_update", "update_or_create", "get_or_create"])
def stored(request: pytest.FixtureRequest, mia: User) -> AIRiskToken:
    """A token stored in each way that Django has."""
    values: dict[str, Any] = {"userid": "user_42", **SEALED}
    match request.param:
        case "save":
            AIRiskToken(**values, user=mia).save()
        case "create":
            tokens.create(**SEALED, userid="user_42", user_id=mia.pk)
        case "bulk_create":
            tokens.bulk_create([AIRiskToken(user=mia, **values)])
        case "bulk_update":
            row = give_token(mia, access_token="another")
            row.access_token = TOKEN
            tokens.bulk_update([row], ["sealed", "key_id"])
        case "update_or_create":
            give_token(mia, access_token="another")
            tokens.update_or_create(user=mia, deployment="default", defaults=values)
        case "get_or_create":
            tokens.get_or_create(user=mia, deployment="default", defaults=values)
    found: AIRiskToken = tokens.get()
    return found


def test_the_token_is_sealed_however_it_is_stored(stored: AIRiskToken) -> None:
    assert stored.access_token == TOKEN
    assert stored.sealed.startswith("gAAAA")
    assert len(stored.key_id) == 12
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM airisk_oauth_airisktoken")
        assert TOKEN not in repr(cursor.fetchall())


def test_the_plain_token_is_nowhere_but_in_the_property(stored: AIRiskToken) -> None:
    assert stored.access_token == TOKEN
    copies = {
        "vars": repr(vars(stored)),
        "repr": repr(stored) + str(stored),
        "property": repr(stored.access_token),
        "pickle": repr(pickle.dumps(stored)),
        "form": repr(model_to_dict(stored)),
        **{kind: serializers.serialize(kind, [stored]) for kind in ("json", "jsonl", "xml", "python")},
    }
    assert not [name for name, text in copies.items() if TOKEN in str(text)]
    again: AIRiskToken = pickle.loads(pickle.dumps(stored))  # noqa: S301 - our own
    assert again.access_token == TOKEN


def test_the_plain_token_is_not_kept_beside_its_seal(mia: User) -> None:
    token = AIRiskToken(user=mia, userid="user_42", **SEALED)
    assert token.access_token == TOKEN
    assert TOKEN not in repr(vars(token)) + repr(pickle.dumps(token))


def test_a_form_shows_neither_seal_nor_key_nor_lease(stored: AIRiskToken) -> None:
    assert {"sealed", "key_id", "lease", "lease_until", "access_token"}.isdisjoint(model_to_dict(stored))


def test_all_but_the_token_has_a_default() -> None:
    before = timezone.now()
    token = tokens.create(**SEALED)
    empty = {name: value for name, value in model_to_dict(token).items() if value not in ("", None, 0)}
    moments = [empty.pop(name) for name in ("obtained_at", "renewed_at", "last_used_at")]
    assert empty == {"id": token.pk, "deployment": "default"}
    assert all(before <= moment <= timezone.now() for moment in moments)


def test_a_key_of_any_type_that_django_takes_is_the_same_owner(mia: User) -> None:
    token = tokens.create(user_id=f"0{mia.pk}", userid="user_42", **SEALED)
    assert token.access_token == as_stored(token).access_token == TOKEN
    assert token.owner == ("default", str(mia.pk), "user_42")


def test_a_user_who_is_not_saved_yet_cannot_have_a_token() -> None:
    with pytest.raises(ValueError, match="Save the user") as raised:
        AIRiskToken(user=User(username="tom"), userid="user_42", **SEALED)
    assert TOKEN not in str(raised.value)


@pytest.mark.parametrize("change", ["userid", "deployment", "user", "application"])
def test_a_seal_that_is_moved_to_another_owner_does_not_open(mia: User, change: str) -> None:
    token = give_token(mia)
    [tom] = users(1)
    changes: dict[str, dict[str, Any]] = {
        "userid": {"userid": "user_43"},
        "deployment": {"deployment": "second"},
        "user": {"user": tom},
        "application": {"user": None},
    }
    tokens.filter(pk=token.pk).update(**changes[change])
    with pytest.raises(Unreadable):
        _ = as_stored(token).access_token


def test_a_row_that_waits_for_its_first_token_has_none_to_read() -> None:
    with pytest.raises(Unreadable):
        _ = tokens.create().access_token


def test_lists_open_no_seal(mia: User, settings: "Settings") -> None:
    token = give_token(mia)
    settings.SECRET_KEY = "another key"
    assert list(tokens.all()) == [token]
    with pytest.raises(Unreadable):
        _ = tokens.get().access_token


# Ends


@pytest.mark.parametrize(
    ("left", "ended"), [(None, False), (HOUR, False), (SKEW * 1.1, False), (SKEW, True), (-HOUR, True)]
)
def test_a_token_within_ten_seconds_of_its_end_has_ended(left: timedelta | None, ended: bool) -> None:
    assert SKEW.total_seconds() == 10
    assert AIRiskToken(expires_at=None if left is None else NOW + left).is_expired_at(NOW) is ended


@pytest.mark.parametrize(
    ("life", "renew_before", "early"),
    [
        (HOUR, 300, timedelta(minutes=5)),
        (HOUR, 0, timedelta()),
        (HOUR, 900, timedelta(minutes=15)),
        (HOUR, 901, timedelta(minutes=15)),
        (timedelta(minutes=4), 300, timedelta(minutes=1)),
        (timedelta(seconds=4), 300, timedelta(seconds=1)),
    ],
)
def test_a_token_is_renewed_early_but_in_the_last_quarter_of_its_life(
    life: timedelta, renew_before: int, early: timedelta
) -> None:
    token = AIRiskToken(renewed_at=NOW - HOUR, expires_at=NOW - HOUR + life)
    assert token.renew_at(renew_before) == NOW - HOUR + life - early


def test_a_token_without_end_is_not_renewed_early() -> None:
    assert AIRiskToken().renew_at(300) is None


# Renewals and failures


FAILURES: list[AIRiskError] = [
    AIRiskRefused(401, "Unauthorized", "00-1"),
    AIRiskRefused(302),
    AIRiskUnavailable("Down."),
    AIRiskInvalidResponse("Odd."),
    ConnectionRequired("Connect.", deployment="second"),
]


@pytest.mark.parametrize("error", FAILURES, ids=repr)
def test_a_stored_failure_is_the_error_that_it_was(error: AIRiskError) -> None:
    token = tokens.create(deployment="second")
    token.record_failure(error, NOW)
    token.save()
    again = as_stored(token).last_error()
    assert type(again) is type(error)
    if not isinstance(error, AIRiskUnavailable | AIRiskInvalidResponse):
        assert vars(again) == vars(error)
    assert as_stored(token).needs_person is isinstance(error, AIRiskRefused | ConnectionRequired)


def test_what_an_error_said_at_the_longest_fits_its_row() -> None:
    token = tokens.create()
    token.record_failure(AIRiskRefused(599, "r" * 120, "t" * 128), NOW)
    token.save()
    assert as_stored(token).failure_reason == "r" * 120


def test_another_kind_of_failure_leaves_nothing_of_the_one_before() -> None:
    token = AIRiskToken()
    token.record_failure(FAILURES[0], NOW)
    token.record_failure(AIRiskUnavailable("Down."), NOW)
    assert (token.failure_status, token.failure_reason, token.failure_trace_id) == (None, "", "")


def test_failures_are_counted_from_the_first_on_and_keep_the_token() -> None:
    token = AIRiskToken(**SEALED, expires_at=NOW + HOUR, renewed_at=NOW - HOUR)
    for number in range(3):
        token.record_failure(AIRiskUnavailable("Down."), NOW + number * HOUR)
    assert (token.failure_count, token.failing_since, token.failed_at) == (3, NOW, NOW + 2 * HOUR)
    assert (token.access_token, token.expires_at, token.renewed_at) == (TOKEN, NOW + HOUR, NOW - HOUR)


@pytest.mark.parametrize("before", [0, 1, 2, 6, 7, 10, 10_000])
def test_a_failure_pauses_half_a_minute_then_twice_as_long_up_to_an_hour(before: int) -> None:
    assert (COOL_DOWN.total_seconds(), MAX_COOL_DOWN.total_seconds()) == (30, 3600)
    pause = timedelta(seconds=min(30 * 2**before, 3600))
    pauses = set()
    for _ in range(50):
        token = AIRiskToken(failure_count=before)
        token.record_failure(AIRiskInvalidResponse("Odd."), NOW)
        assert token.retry_at is not None
        pauses.add(token.retry_at - NOW)
    assert pause <= min(pauses) < max(pauses) <= pause * 1.2


@pytest.mark.parametrize("error", [FAILURES[0], ConnectionRequired("A page.")])
@pytest.mark.parametrize(("before", "seconds"), [(0, 30), (7, 3840), (11, 61_440), (12, 86_400), (10_000, 86_400)])
def test_pause_grows_to_a_day_where_a_person_is_needed(error: AIRiskError, before: int, seconds: int) -> None:
    token = AIRiskToken(failure_count=before)
    token.record_failure(error, NOW)
    assert token.retry_at is not None
    assert timedelta(seconds=seconds) <= token.retry_at - NOW <= timedelta(seconds=seconds * 1.2)


@pytest.mark.parametrize(("before", "asked", "least"), [(0, 60, 60), (0, 5, 30), (3, 60, 240), (0, None, 30)])
def test_nobody_tries_again_before_airisk_asked_to(before: int, asked: float | None, least: float) -> None:
    token = AIRiskToken(failure_count=before)
    token.record_failure(AIRiskUnavailable("Down.", retry_after=asked), NOW)
    assert token.retry_at is not None
    assert timedelta(seconds=least) <= token.retry_at - NOW <= timedelta(seconds=least * 1.2)


def test_a_renewal_brings_a_token_and_forgets_what_failed() -> None:
    token = AIRiskToken(**SEALED, failure_count=2)
    token.record_failure(FAILURES[0], NOW)
    token.apply(TokenGrant(Secret("new-token"), NOW + 2 * HOUR), NOW + HOUR)
    fresh = AIRiskToken()
    assert (token.access_token, token.expires_at, token.renewed_at) == ("new-token", NOW + 2 * HOUR, NOW + HOUR)
    assert [getattr(token, name) for name in NO_FAILURE] == [getattr(fresh, name) for name in NO_FAILURE]
    assert not token.needs_person


# What a person's connecting brings


def test_connecting_makes_the_owners_one_row(mia: User) -> None:
    for user_id, userid in ((mia.pk, "user_42"), (None, "")):
        for brought in ("first", "second"):
            stored = store(user_id, "default", userid, grant(brought))
            assert as_stored(stored).access_token == stored.access_token == brought
            assert (stored.user_id, stored.userid) == (user_id, userid)
    assert tokens.count() == 2


def test_connecting_replaces_everything_failures_and_lease_included(mia: User) -> None:
    old = give_token(mia, userid="user_41", obtained_at=NOW, last_used_at=NOW, renewed_at=NOW)
    old.record_failure(FAILURES[0], NOW)
    old.save()
    claim(uuid4(), old)
    before = timezone.now()
    store(mia.pk, "default", "user_42", grant(ends=None))
    new, fresh = as_stored(old), AIRiskToken()
    assert (new.access_token, new.userid, new.expires_at) == ("new-token", "user_42", None)
    assert all(moment >= before for moment in (new.obtained_at, new.last_used_at, new.renewed_at))
    assert (new.lease, new.lease_until) == (None, None)
    assert [getattr(new, name) for name in NO_FAILURE] == [getattr(fresh, name) for name in NO_FAILURE]


@concurrently
def test_connecting_twice_at_once_leaves_one_row(mia: User) -> None:
    at_once(*[lambda: store(mia.pk, "default", "user_42", grant())] * 4)
    assert tokens.get().access_token == "new-token"


# Leases


def test_a_claim_leases_for_so_many_seconds_and_returns_what_it_got(mia: User) -> None:
    token, other, lease, now = give_token(mia), give_token(None), uuid4(), timezone.now()
    [claimed] = claim(lease, token, now=now, seconds=90)
    assert (claimed.pk, claimed.access_token) == (token.pk, "stored-token")
    row = as_stored(token)
    assert (row.lease, row.lease_until) == (lease, now + timedelta(seconds=90))
    assert as_stored(other).lease is None


def test_leased_rows_are_passed_over_and_lapsed_leases_taken() -> None:
    now = timezone.now()
    rows = [give_token(user) for user in users(3)]
    leased, lapsed, free = rows
    first, second = uuid4(), uuid4()
    assert pks(claim(first, leased, now=now, seconds=60)) == {leased.pk}
    assert pks(claim(first, lapsed, now=now, seconds=-1)) == {lapsed.pk}
    assert pks(claim(second, *rows, now=now)) == {lapsed.pk, free.pk}
    assert claim(uuid4(), *rows, now=now) == []
    assert {row.pk: row.lease for row in tokens.all()} == {leased.pk: first, lapsed.pk: second, free.pk: second}


def test_a_claim_takes_the_first_so_many_in_the_order_asked_for() -> None:
    rows = [give_token(user, ends_in=3600 - number) for number, user in enumerate(users(5))]
    lease = uuid4()
    taken = leases.claim(tokens.order_by("expires_at"), lease, now=timezone.now(), seconds=60, limit=2)
    assert [token.pk for token in taken] == [rows[4].pk, rows[3].pk]
    assert pks(list(tokens.filter(lease=lease))) == pks(taken)
    other = leases.claim(tokens.order_by("expires_at"), uuid4(), now=timezone.now(), seconds=60, limit=2)
    assert [token.pk for token in other] == [rows[2].pk, rows[1].pk]
    # As after a connection that broke before it brought the answer.
    again = leases.claim(tokens.order_by("expires_at"), lease, now=timezone.now(), seconds=60, limit=2)
    assert [token.pk for token in again] == [rows[4].pk, rows[3].pk]


def test_a_claim_of_nothing_gets_nothing() -> None:
    assert claim(uuid4()) == []


@concurrently
def test_a_row_is_leased_to_one_of_those_who_claim_it_at_once() -> None:
    rows = [give_token(user) for user in users(20)]
    first, second, third = at_once(*[lambda: pks(claim(uuid4(), *random.sample(rows, 20)))] * 3)
    assert first | second | third == pks(rows)
    assert len(first) + len(second) + len(third) == 20


@concurrently
def test_a_row_that_is_looked_at_by_two_is_leased_by_one() -> None:
    rows = [give_token(user) for user in users(2)]
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


@concurrently
def test_a_row_that_somebody_is_changing_is_not_claimed_and_holds_nobody_up_where_rows_can_be_locked() -> None:
    held, free = (give_token(user) for user in users(2))
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
        claimed = claim(uuid4(), held, free)
        passed_by = not change.done()
        done.set()
    assert change.exception() is None
    assert pks(claimed) == {free.pk}
    assert passed_by is can_pass


def test_settling_writes_what_changed_and_gives_the_lease_up() -> None:
    rows = [give_token(user) for user in users(3)]
    lease, now = uuid4(), timezone.now()
    claimed = claim(lease, *rows)
    for number, token in enumerate(claimed):
        token.apply(grant(f"token-{number}", None if number else HOUR), now)
        token.last_used_at = NOW
    assert save_and_release(claimed, lease, ISSUED) == claimed
    written = list(tokens.order_by("pk"))
    assert [token.access_token for token in written] == ["token-0", "token-1", "token-2"]
    assert [token.expires_at for token in written] == [claimed[0].expires_at, None, None]
    assert all((token.renewed_at, token.lease, token.lease_until) == (now, None, None) for token in written)
    assert all(token.last_used_at != NOW for token in written)


def test_settling_writes_each_failure_to_its_own_row() -> None:
    lease = uuid4()
    claimed = claim(lease, *(give_token(user) for user in users(len(FAILURES))))
    for number, (token, error) in enumerate(zip(claimed, FAILURES, strict=True)):
        token.failure_count = number
        token.record_failure(error, NOW + number * HOUR)
    assert save_and_release(claimed, lease, NO_FAILURE) == claimed
    for token in claimed:
        row = as_stored(token)
        assert [getattr(row, name) for name in NO_FAILURE] == [getattr(token, name) for name in NO_FAILURE]


def test_settling_takes_one_statement(django_assert_num_queries: "DjangoAssertNumQueries") -> None:
    lease = uuid4()
    claimed = claim(lease, *(give_token(user) for user in users(4)))
    for token in claimed:
        token.apply(grant(), NOW)
    with django_assert_num_queries(1):
        save_and_release(claimed, lease, (*ISSUED, *NO_FAILURE))
    with django_assert_num_queries(0):
        assert save_and_release([], lease) == []


@pytest.mark.parametrize("how", ["lapsed", "connected", "disconnected", "settled"])
def test_a_row_whose_lease_was_lost_is_left_as_it_is_and_the_others_written(how: str) -> None:
    kept, lost = (give_token(user) for user in users(2))
    lease = uuid4()
    claimed = claim(lease, kept, lost, seconds=-1)
    another: UUID | None = None
    if how == "lapsed":
        another = uuid4()
        assert pks(claim(another, lost)) == {lost.pk}
    elif how == "connected":
        store(lost.user_id, "default", "user_42", grant("connected"))
    elif how == "disconnected":
        tokens.filter(pk=lost.pk).delete()
    else:
        save_and_release([token for token in claimed if token.pk == lost.pk], lease)
    before = list(tokens.filter(pk=lost.pk).values())
    for token in claimed:
        token.apply(grant("too late"), timezone.now())
    assert pks(save_and_release(claimed, lease, ISSUED)) == {kept.pk}
    assert list(tokens.filter(pk=lost.pk).values()) == before
    assert as_stored(kept).access_token == "too late"
    assert as_stored(kept).lease is None
    assert not before or before[0]["lease"] == another


def test_a_lease_of_which_all_rows_were_lost_settles_nothing() -> None:
    rows = [give_token(user) for user in users(2)]
    claimed = claim(uuid4(), *rows)
    for token in claimed:
        token.apply(grant("too late"), timezone.now())
    assert save_and_release(claimed, uuid4(), ISSUED) == []
    assert {token.access_token for token in tokens.all()} == {"stored-token"}
    assert not tokens.filter(lease=None).exists()


# Flows under way


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


def test_the_eleventh_pending_flow_drops_the_oldest(begin: Begin) -> None:
    assert MAX_PENDING == 10
    started = [begin(deployment=alias).pk for alias in ["default", "second"] * 7]
    assert sorted(pendings.values_list("pk", flat=True)) == started[4:]


def test_spent_flows_and_those_of_others_are_not_counted(begin: Begin) -> None:
    [tom] = users(1)
    theirs = [begin(user=tom).pk for _ in range(5)]
    spent = [begin().pk for _ in range(5)]
    assert all(pendings.spend(pk) for pk in spent)
    mine = [begin().pk for _ in range(10)]
    assert set(pendings.values_list("pk", flat=True)) == {*theirs, *spent, *mine}
    begin()
    assert set(pendings.values_list("pk", flat=True)) >= {*theirs, *spent, *mine[1:]}
    assert not pendings.filter(pk=mine[0]).exists()


def test_a_thousand_starts_leave_ten_pending_flows(begin: Begin) -> None:
    for _ in range(1000):
        begin()
    assert pendings.count() == 10


def test_whoever_begins_sweeps_everybodys_old_flows_spent_or_not(begin: Begin) -> None:
    [tom] = users(1)
    now = timezone.now()
    rows = [begin(user=tom), begin(user=tom), begin(user=tom)]
    ages = [KEEP_SPENT * 1.1, KEEP_SPENT * 1.1, KEEP_SPENT * 0.9]
    for row, age in zip(rows, ages, strict=True):
        pendings.filter(pk=row.pk).update(created_at=now - age)
    pendings.spend(rows[0].pk)
    mine = begin()
    assert set(pendings.all()) == {rows[2], mine}


def test_a_flow_begins_now_and_open(begin: Begin) -> None:
    before = timezone.now()
    pending = pendings.get(pk=begin(next="/here/").pk)
    assert before <= pending.created_at <= timezone.now()
    assert (pending.spent_at, pending.outcome, pending.next) == (None, PendingAuthorization.Outcome.OPEN, "/here/")
    assert str(pending) == f"default, {pending.created_at:%Y-%m-%d %H:%M}"


def test_a_state_is_nobodys_twice(begin: Begin) -> None:
    begin(state_hash="a" * 64)
    with pytest.raises(IntegrityError), transaction.atomic():
        begin(state_hash="a" * 64)


def test_a_flow_is_spent_once(begin: Begin) -> None:
    pending, other = begin(), begin()
    assert [pendings.spend(pending.pk) for _ in range(3)] == [True, False, False]
    assert pendings.get(pk=pending.pk).spent_at is not None
    assert pendings.get(pk=other.pk).spent_at is None
    assert pendings.spend(0) is False


@concurrently
def test_a_flow_is_spent_by_one_of_those_who_try_at_once(begin: Begin) -> None:
    pending = begin()
    assert sorted(at_once(*[lambda: pendings.spend(pending.pk)] * 8)) == [False] * 7 + [True]


# What a site hands in


@pytest.mark.parametrize(
    "token",
    [
        "",
        " ",
        "canary\n",
        "canary\r\nX-Evil: 1",
        "can ary",
        "canary\0",
        "canaryü",
        "=canary",
        b"canary",
        None,
        17,
        "x" * 20_000,
    ],
    ids=lambda token: repr(token)[:30],
)
def test_what_is_no_token_is_refused_unrepeated(token: Any) -> None:
    with pytest.raises(ValueError, match="not an access token") as caught:
        AIRiskToken(**{"access_token": token})  # noqa: PIE804 - a property of the model
    assert "canary" not in str(caught.value)
    stored = AIRiskToken(**SEALED)
    with pytest.raises(ValueError, match="not an access token"):
        stored.access_token = token
    assert stored.access_token == TOKEN


@pytest.mark.parametrize("alias", ["default", "unknown"])
def test_a_token_notes_the_origin_that_it_is_for(alias: str) -> None:
    [token] = AIRiskToken.objects.bulk_create([AIRiskToken(deployment=alias, **SEALED)])
    assert token.origin == ("https://demo.aicrisk.com:443" if alias == "default" else "")
    assert token.is_from(conf.deployment())
    assert token.is_from(conf.deployment("second")) is (alias == "unknown")


@concurrently
def test_tokens_from_before_get_the_origin_of_today() -> None:
    executor = MigrationExecutor(connection)
    executor.migrate([("airisk_oauth", "0002_sealing_policy")])
    former: Any = executor.loader.project_state([("airisk_oauth", "0002_sealing_policy")]).apps
    rows = former.get_model("airisk_oauth", "AIRiskToken").objects
    rows.create(sealed="sealed")
    rows.create(deployment="unknown", sealed="sealed")
    rows.create(deployment="second")
    MigrationExecutor(connection).migrate(executor.loader.graph.leaf_nodes("airisk_oauth"))
    origins = dict(AIRiskToken.objects.values_list("deployment", "origin"))
    assert origins == {"default": "https://demo.aicrisk.com:443", "unknown": "", "second": ""}
