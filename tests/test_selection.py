"""Which tokens a sweep renews, which it leaves alone, and which it skips with a reason."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import Group, User
from django.utils import timezone

from airisk_oauth import conf
from airisk_oauth.models import AIRiskIdentity, AIRiskToken
from airisk_oauth.sandbox.world import World
from airisk_oauth.tokens.report import (
    DEACTIVATED,
    IDENTITY_CHANGED,
    LEASED_ELSEWHERE,
    OTHER_ADDRESS,
    UNREADABLE,
    UNRESOLVED,
    Trouble,
)
from airisk_oauth.tokens.selection import Selection
from tests.support.options import set_option
from tests.support.people import connected_users, give_token, renewed_of, token_requests
from tests.support.sweeps import counted, run, swept

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("save_soon")]
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)

within_and_all = pytest.mark.parametrize("within", [timedelta(minutes=10), None], ids=["within", "all"])


# Due


@pytest.mark.parametrize("within", [timedelta(0), timedelta(minutes=10), 2 * HOUR])
def test_within_includes_the_exact_moment(airisk: World, monkeypatch: pytest.MonkeyPatch, within: timedelta) -> None:
    now = timezone.now()
    monkeypatch.setattr(timezone, "now", lambda: now)
    ends = [now - DAY, now + within, now + within + timedelta(milliseconds=1)]
    tokens = [connected_users(1, expires_at=end)[0] for end in ends]
    assert run(within=within) == {"renewed": 2}
    assert renewed_of(tokens) == [True, True, False]


def give_described(user: User | None, values: dict[str, Any]) -> None:
    """Store a token that expires in a minute, with these values; those that are durations count from now."""
    now = timezone.now()
    given: dict[str, Any] = {"ends_in": 60}
    given |= {name: now + value if isinstance(value, timedelta) else value for name, value in values.items()}
    give_token(user, **given)


of_each_owner = pytest.mark.parametrize("is_application", [False, True], ids=["user", "application"])


@of_each_owner
@pytest.mark.parametrize(
    ("values", "is_due"),
    [
        ({}, True),
        ({"ends_in": 3600}, False),
        ({"ends_in": None}, False),
        ({"last_used_at": -29 * DAY}, True),
        ({"last_used_at": -31 * DAY}, False),
        ({"retry_at": HOUR}, False),
        ({"retry_at": -HOUR}, True),
        ({"renewed_at": timedelta(seconds=8)}, False),
    ],
)
def test_idle_or_paused_token_is_left_alone(
    airisk: World, mia: User, values: dict[str, Any], is_due: bool, is_application: bool
) -> None:
    give_described(None if is_application else mia, values)
    assert Selection(conf.deployment()).total() == is_due
    assert run() == ({"renewed": 1} if is_due else {})
    assert len(token_requests(airisk)) == is_due


@of_each_owner
@pytest.mark.parametrize(
    ("values", "is_due"),
    [
        ({"ends_in": 3600}, True),
        ({"ends_in": None}, True),
        ({"last_used_at": -31 * DAY}, True),
        ({"retry_at": HOUR}, True),
        # It was renewed after the sweep began.
        ({"renewed_at": timedelta(seconds=8)}, False),
    ],
)
def test_all_includes_idle_and_paused_tokens(
    airisk: World, mia: User, values: dict[str, Any], is_due: bool, is_application: bool
) -> None:
    give_described(None if is_application else mia, values)
    assert Selection(conf.deployment(), within=None).total() == is_due
    assert run(within=None) == ({"renewed": 1} if is_due else {})
    assert len(token_requests(airisk)) == is_due


@within_and_all
@of_each_owner
def test_row_without_a_token_is_left_alone(
    airisk: World, mia: User, within: timedelta | None, is_application: bool
) -> None:
    """Such is the application's row before its first token."""
    give_token(None if is_application else mia, ends_in=60)
    AIRiskToken.objects.update(sealed="")
    assert run(within=within) == {}
    assert not airisk.journal


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"RENEW_UNUSED_FOR": 2}, {}), ({"SILENT_RENEWAL": False}, {}), ({}, {"renewed": 1})],
    ids=["idle", "by hand", "neither"],
)
def test_deployments_options_limit_what_is_due(
    airisk: World, settings: Any, options: dict[str, Any], expected: dict[str, int]
) -> None:
    connected_users(1, last_used_at=timezone.now() - 3 * DAY)
    set_option(settings, **options)
    assert run() == expected


# Chosen


def test_sweep_renews_one_deployments_tokens(airisk: World) -> None:
    tokens = connected_users(1) + connected_users(1, "second")
    assert run("second") == {"renewed": 1}
    assert renewed_of(tokens) == [False, True]


def test_limit_takes_what_expires_first(airisk: World) -> None:
    tokens = [connected_users(1, ends_in=ends)[0] for ends in (60, -60, 30)]
    assert run(limit=1) == {"renewed": 1}
    assert renewed_of(tokens) == [False, True, False]
    assert run(limit=5) == {"renewed": 2}


def test_selection_of_a_user_has_no_other_token(airisk: World) -> None:
    tokens = connected_users(3)
    assert run(user_id=tokens[1].user_id) == {"renewed": 1}
    assert renewed_of(tokens) == [False, True, False]


def test_selection_of_rows_has_no_other_token(airisk: World) -> None:
    tokens = connected_users(2, ends_in=3000) + connected_users(2)
    assert run(pks=[tokens[0].pk]) == {}
    assert run(pks=[tokens[0].pk], within=None, limit=5) == {"renewed": 1}
    assert run(pks=[tokens[2].pk]) == {"renewed": 1}
    assert renewed_of(tokens) == [True, False, True, False]


@within_and_all
@pytest.mark.parametrize("workers", [2, 7])
def test_short_lived_token_is_renewed_only_once(airisk: World, within: timedelta | None, workers: int) -> None:
    airisk.switches.token_life = 60
    tokens = connected_users(12, ends_in=-60) + connected_users(3, ends_in=-30)
    seen: list[str] = []
    report = swept(within=within, workers=workers, progress=seen.append)
    assert counted(report) == {"renewed": 15}
    assert report.is_clean
    assert seen == ["renewed"] * 15
    assert all(renewed_of(tokens))
    assert Counter(seen.values["userid"] for seen in token_requests(airisk)) == {each.userid: 1 for each in tokens}


# Times from the future


TIMES = [
    ("renewed_at",),
    ("retry_at",),
    ("failed_at", "retry_at"),
    ("failed_at", "failing_since", "retry_at"),
    ("failing_since",),
    ("last_used_at",),
    ("lease_until",),
]
#: A pause of hours that we may have set ourselves.
OURS = (("retry_at",), "refused", timedelta(hours=8))


@pytest.mark.parametrize(
    ("names", "kind", "ahead"),
    [
        each
        for each in product(TIMES, ["", "unavailable", "refused"], [timedelta(hours=8), timedelta(days=3650)])
        if each != OURS
    ],
    ids=str,
)
def test_wrong_clocks_times_delay_no_renewal(
    airisk: World, names: tuple[str, ...], kind: str, ahead: timedelta
) -> None:
    values: dict[str, Any] = dict.fromkeys(names, timezone.now() + ahead)
    lease = uuid4() if "lease_until" in names else None
    tokens = connected_users(2, failure_kind=kind, failure_count=int(kind != ""), lease=lease, **values)
    assert run() == {"renewed": 2}
    assert all(renewed_of(tokens))


# Skipped with a reason


def _remapped(token: AIRiskToken) -> None:
    AIRiskIdentity.objects.filter(user=token.user_id).update(userid="user_7")


def _unmapped(token: AIRiskToken) -> None:
    AIRiskIdentity.objects.filter(user=token.user_id).delete()


def _unreadable(token: AIRiskToken) -> None:
    AIRiskToken.objects.filter(pk=token.pk).update(sealed="encrypted with a key that is gone")


def _moved(token: AIRiskToken) -> None:
    AIRiskToken.objects.filter(pk=token.pk).update(origin="https://elsewhere.example:443")


def _leased(token: AIRiskToken) -> None:
    AIRiskToken.objects.filter(pk=token.pk).update(lease=uuid4(), lease_until=timezone.now() + timedelta(minutes=1))


Change = Callable[[AIRiskToken], None]
FOR_A_PERSON = [
    (_remapped, IDENTITY_CHANGED),
    (_unmapped, IDENTITY_CHANGED),
    (_unreadable, UNREADABLE),
    (_moved, OTHER_ADDRESS),
]


def three_of_which_one_failed() -> tuple[list[AIRiskToken], AIRiskToken]:
    """Store three tokens, and return all of them and the one whose renewals have failed for long."""
    tokens = connected_users(3)
    AIRiskToken.objects.filter(pk=tokens[1].pk).update(failure_kind="invalid", failure_count=2, failing_since=LONG_AGO)
    return tokens, tokens[1]


@pytest.mark.parametrize(("change", "reason"), [*FOR_A_PERSON, (_leased, LEASED_ELSEWHERE)])
@within_and_all
def test_excluded_token_is_skipped_with_a_reason(
    airisk: World, change: Change, reason: str, within: timedelta | None
) -> None:
    _tokens, token = three_of_which_one_failed()
    change(token)
    before = AIRiskToken.objects.values_list("sealed", "lease").get(pk=token.pk)
    seen: list[str] = []
    report = swept(within=within, progress=seen.append)
    assert counted(report) == Counter(seen) == {"renewed": 2, "skipped": 1}
    assert report.reasons == {reason: 1}
    assert AIRiskToken.objects.values_list("sealed", "lease").get(pk=token.pk) == before
    assert len(token_requests(airisk)) == 2


@pytest.mark.parametrize(("change", "reason"), FOR_A_PERSON)
@within_and_all
def test_token_that_needs_a_person_is_named_once(
    airisk: World, change: Change, reason: str, within: timedelta | None
) -> None:
    _tokens, token = three_of_which_one_failed()
    change(token)
    first, second = swept(within=within), swept()
    named = [Trouble(token.pk, token.user_id, "default", reason)]
    assert (first.needs_person, first.is_clean) == (named, False)
    assert (second.needs_person, second.is_clean, second.reasons) == ([], True, {reason: 1})


def test_token_leased_elsewhere_is_no_fault(airisk: World) -> None:
    _leased(connected_users(2)[0])
    report = swept()
    assert (report.needs_person, report.is_clean) == ([], True)


@pytest.mark.parametrize(("change", "reason"), [*FOR_A_PERSON, (_leased, LEASED_ELSEWHERE)])
def test_token_is_renewed_once_it_is_put_right(airisk: World, change: Change, reason: str) -> None:
    _tokens, token = three_of_which_one_failed()
    change(token)
    assert swept().reasons == {reason: 1}
    AIRiskToken.objects.filter(pk=token.pk).update(sealed=token.sealed, lease_until=None, origin="")
    AIRiskIdentity.objects.update_or_create(user=token.user, defaults={"userid": token.userid})
    assert run() == {"renewed": 1}


def test_resolver_without_many_is_asked_per_user(airisk: World, settings: Any) -> None:
    set_option(settings, USERID="tests.support.resolvers.by_name")
    tokens = connected_users(3)
    AIRiskIdentity.objects.all().delete()
    User.objects.filter(username=tokens[0].userid).update(last_name="Nobody")
    assert run() == {"renewed": 2, "skipped": 1}
    assert renewed_of(tokens)[1:] == [True, True]


@pytest.mark.parametrize("fault", ["Wrong", "Faulty"])
def test_userid_failing_for_one_stops_no_other(fault: str, airisk: World, settings: Any) -> None:
    set_option(settings, USERID="tests.support.resolvers.by_name")
    tokens = connected_users(12)
    User.objects.filter(username=tokens[2].userid).update(last_name=fault)
    report = swept(workers=2)
    assert counted(report) == {"renewed": 11, "skipped": 1}
    assert report.reasons == {UNRESOLVED: 1}
    assert not report.is_clean


# Deactivated users


@within_and_all
def test_tokens_of_deactivated_users_are_left_out(airisk: World, within: timedelta | None) -> None:
    tokens = connected_users(3)
    give_token(None, ends_in=60)
    User.objects.filter(username=tokens[1].userid).update(is_active=False)
    assert Selection(conf.deployment(), within=within).total() == 3
    assert run(within=within) == {"renewed": 3}
    assert renewed_of(tokens) == [True, False, True]


@within_and_all
@pytest.mark.parametrize("by", ["user_id", "pks"])
def test_named_token_of_deactivated_user_is_told(airisk: World, within: timedelta | None, by: str) -> None:
    [token] = connected_users(1)
    User.objects.update(is_active=False)
    named: dict[str, Any] = {"user_id": token.user_id} if by == "user_id" else {"pks": [token.pk]}
    report = swept(within=within, **named)
    assert (report.reasons, report.is_clean) == ({DEACTIVATED: 1}, True)


@pytest.fixture
def group_tokens(airisk: World, settings: Any) -> list[AIRiskToken]:
    """Tokens on a site whose users have no column ``is_active``."""
    tokens = connected_users(3)
    settings.AUTH_USER_MODEL = "auth.Group"
    Group.objects.bulk_create(Group(pk=token.user_id, name=token.userid) for token in tokens)
    return tokens


def test_users_need_no_column_is_active(group_tokens: list[AIRiskToken]) -> None:
    assert run() == {"renewed": 3}


def test_is_active_may_be_a_property(group_tokens: list[AIRiskToken], monkeypatch: pytest.MonkeyPatch) -> None:
    departed = group_tokens[2].userid
    monkeypatch.setattr(Group, "is_active", property(lambda group: group.name != departed), raising=False)
    report = swept()
    assert (counted(report), report.reasons) == ({"renewed": 2, "skipped": 1}, {DEACTIVATED: 1})
    assert report.is_clean
    assert renewed_of(group_tokens) == [True, True, False]
