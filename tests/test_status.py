"""The status of a token: one expression of the database, which decrypts nothing."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.db.models import F
from django.test import Client
from django.utils import timezone

from airisk_oauth.models import AIRiskToken
from airisk_oauth.tokens.status import Status, _Seconds, with_status
from tests.support.admin import listed, token_page
from tests.support.options import set_option
from tests.support.people import give_token
from tests.support.statuses import STATUSES, store

if TYPE_CHECKING:
    from pytest_django import Settings


def statuses() -> dict[Any, str]:
    """Return the status of each token, as the database tells it."""
    found: Any = with_status(AIRiskToken.objects.all())
    return dict(found.values_list("pk", "status"))


@pytest.mark.usefixtures("second_by_hand", "db")
@pytest.mark.parametrize(("status", "name", "values"), STATUSES, ids=[name for _status, name, _values in STATUSES])
def test_status_is_the_most_urgent_that_applies(status: Status, name: str, values: dict[str, Any]) -> None:
    token = store(name, values)
    assert statuses() == {token.pk: status}


@pytest.mark.usefixtures("second_by_hand")
def test_list_is_filtered_by_the_status_it_shows(admin_client: Client) -> None:
    # There is one token of the application only: the one that has not been obtained.
    stored = [(status, store(name, values)) for status, name, values in STATUSES if values.get("user", ...) is not None]
    stored.append((Status.AWAITED, store(*STATUSES[-1][1:])))
    assert {status for status, _token in stored} == set(Status)
    assert statuses() == {token.pk: status for status, token in stored}
    for status in Status:
        response = admin_client.get(token_page("changelist"), {"status": status.value})
        found = {token for its_status, token in stored if its_status == status}
        assert set(listed(response)) == found
        badge = f'<span class="airisk-state airisk-{status.value}">{status.label}</span>'
        assert response.content.decode().count(badge) == len(found)
        assert badge in admin_client.get(token_page("change", found.pop().pk)).content.decode()


@pytest.mark.parametrize("life", [40, 400, 1100, 1300, 86400])
def test_token_expires_soon_when_it_is_due(life: int, db: None) -> None:
    """The database says what the model says of one token, to the second."""
    for left in (15, 95, 105, 295, 305, life - 5, 8 * 3600):
        AIRiskToken.objects.all().delete()
        token = give_token(None, ends_in=left, renewed_at=timezone.now() - timedelta(seconds=life - left))
        renew_at = token.renew_at(300)
        assert renew_at is not None
        expected = Status.EXPIRES_SOON if renew_at <= timezone.now() else Status.VALID
        assert statuses() == {token.pk: expected}


def test_own_userids_need_no_identity(db: None, settings: "Settings") -> None:
    set_option(settings, USERID="tests.support.resolvers.next_answer")
    token = give_token(User.objects.create_user("tom"))
    assert statuses() == {token.pk: Status.VALID}


def test_status_multiplies_no_durations_on_mysql() -> None:
    """MySQL cannot: the list was a syntax error there. Its SQL is made without a server."""
    expression = _Seconds(F("expires_at"))
    compiler: Any = AIRiskToken.objects.all().query.get_compiler("default")
    sql, _params = expression.resolve_expression(compiler.query).as_mysql(compiler, connection)
    assert sql == "(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', {}) / 1e6)".format(
        '"airisk_oauth_airisktoken"."expires_at"'
    )
