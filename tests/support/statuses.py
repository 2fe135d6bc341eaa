"""Tokens in each status."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from airisk_oauth.models import AIRiskToken
from airisk_oauth.tokens.status import Status
from tests.support.admin import person
from tests.support.options import set_option
from tests.support.people import give_token

#: The alias of a deployment that is not in the settings.
GONE = "gone"

#: A status, what brings it about, and how to store such a token.
STATUSES: list[tuple[Status, str, dict[str, Any]]] = [
    (Status.VALID, "with an hour left", {}),
    (Status.VALID, "without an expiry", {"ends_in": None}),
    (Status.VALID, "more than five minutes left", {"ends_in": 330}),
    (Status.VALID, "more than a quarter of its lifetime left", {"ends_in": 150, "life": 400}),
    (Status.VALID, "by hand and not expired", {"deployment": "second"}),
    (Status.VALID, "the application's", {"user": None}),
    (Status.VALID, "of a deactivated user", {"is_active": False}),
    (Status.EXPIRES_SOON, "less than five minutes left", {"ends_in": 290}),
    (Status.EXPIRES_SOON, "less than a quarter of its lifetime left", {"ends_in": 90, "life": 400}),
    (Status.EXPIRES_SOON, "renewed in the future", {"ends_in": 290, "life": -28800}),
    (Status.VALID, "renewed in the future, and not due", {"ends_in": 330, "life": -28800}),
    (Status.EXPIRES_SOON, "by hand, less than ten minutes left", {"deployment": "second", "ends_in": 500}),
    (Status.EXPIRED, "expired", {"ends_in": -60}),
    (Status.EXPIRED, "about to expire", {"ends_in": 5}),
    (Status.EXPIRED, "short-lived, an eighth left", {"ends_in": 4, "life": 40}),
    (Status.EXPIRES_SOON, "short-lived, a quarter left", {"ends_in": 8, "life": 40}),
    (Status.EXPIRED, "expired, of an unknown deployment", {"deployment": GONE, "ends_in": -60}),
    (Status.RECONNECT, "refused", {"failure_kind": "refused", "failure_count": 1}),
    (Status.RECONNECT, "a person is required", {"failure_kind": "person", "failure_count": 1}),
    (Status.RECONNECT, "by hand and expired", {"deployment": "second", "ends_in": -60}),
    (Status.RECONNECT, "identity changed", {"userid": "user_1"}),
    (Status.RECONNECT, "identity removed", {"identity": None}),
    (Status.RECONNECT, "issued elsewhere", {"origin": "https://elsewhere.example:443"}),
    (Status.VALID, "the application's, issued elsewhere", {"user": None, "origin": "https://elsewhere.example:443"}),
    (Status.RECONNECT, "identity on another deployment only", {"identity": "second"}),
    (Status.RECONNECT, "the application's, refused", {"user": None, "failure_kind": "refused", "failure_count": 1}),
    (Status.FAILING, "unavailable", {"failure_kind": "unavailable", "failure_count": 1, "ends_in": -60}),
    (Status.FAILING, "unusable response", {"failure_kind": "invalid", "failure_count": 9}),
    (Status.FAILING, "never obtained", {"user": None, "sealed": "", "failure_kind": "invalid", "failure_count": 1}),
    (Status.UNREADABLE, "unknown key", {"key_id": "unknown"}),
    (Status.UNREADABLE, "unknown key and more", {"key_id": "unknown", "failure_kind": "refused", "failure_count": 1}),
    (Status.AWAITED, "not obtained", {"user": None, "sealed": "", "key_id": "", "ends_in": None}),
]


def store_described(name: str) -> AIRiskToken:
    """Store the token of :data:`STATUSES` with this description."""
    [values] = [values for _status, its_name, values in STATUSES if its_name == name]
    return store(name, values)


def store(name: str, values: dict[str, Any]) -> AIRiskToken:
    """Store a token with these values; ``life`` is for how many seconds AIRisk issued it."""
    given = {"user": ..., "identity": values.get("deployment", "default"), "life": None, "sealed": None, **values}
    user, identity, life, sealed = (given.pop(key) for key in ("user", "identity", "life", "sealed"))
    is_active = given.pop("is_active", True)
    if user is ...:
        user = person(name, deployment=identity or "default")
        User.objects.filter(pk=user.pk).update(is_active=is_active)
        if identity is None:
            user.airisk_identities.all().delete()
    key_id = given.pop("key_id", None)
    if life is not None:
        given["renewed_at"] = timezone.now() - timedelta(seconds=life - given["ends_in"])
    token = give_token(user, **given)
    if key_id is not None:
        token.key_id = key_id
    if sealed is not None:
        token.sealed = sealed
    token.origin = given.get("origin", token.origin)
    token.save()
    return token


@pytest.fixture
def second_by_hand(settings: Any) -> None:
    """The second deployment renews nothing silently."""
    set_option(settings, "second", SILENT_RENEWAL=False, RENEW_BEFORE=600)
