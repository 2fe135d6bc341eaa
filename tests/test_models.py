"""The rows: one token per owner, encrypted; when it expires; and what a site may hand in."""

import pickle
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

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
from airisk_oauth.models import AIRiskIdentity, AIRiskToken, PendingAuthorization
from airisk_oauth.sealing import Unreadable
from tests.support.database import committing
from tests.support.people import give_token
from tests.support.rows import as_stored, new_users

if TYPE_CHECKING:
    from pytest_django import Settings

TOKEN = "canary-token"
NOW = datetime.fromisoformat("2025-03-31T12:00:00+00:00")
HOUR = timedelta(hours=1)
SEALED: dict[str, Any] = {"access_token": TOKEN}

pytestmark = pytest.mark.django_db

tokens = AIRiskToken.objects
pendings = PendingAuthorization.objects


def test_migrations_match_the_models() -> None:
    call_command("makemigrations", "airisk_oauth", check=True, dry_run=True, verbosity=0)


# One row per owner


class _Replica:
    """A router that reads elsewhere than it writes."""

    def db_for_read(self, model: object, **hints: object) -> str:
        return "replica"

    def db_for_write(self, model: object, **hints: object) -> str:
        return "default"


@pytest.mark.parametrize("deployment", ["default", "second"])
def test_user_has_one_token_per_deployment(mia: User, deployment: str) -> None:
    [tom] = new_users(1)
    for user, alias in ((mia, "default"), (mia, "second"), (tom, "default"), (None, "default"), (None, "second")):
        give_token(user, deployment=alias)
    with pytest.raises(IntegrityError), transaction.atomic():
        give_token(mia, deployment=deployment)
    assert tokens.count() == 5


@pytest.mark.parametrize("deployment", ["default", "second"])
def test_application_has_one_token_per_deployment(deployment: str) -> None:
    give_token(None, deployment="default")
    give_token(None, deployment="second")
    with pytest.raises(IntegrityError), transaction.atomic():
        tokens.bulk_create([AIRiskToken(deployment=deployment, **SEALED)])
    assert tokens.filter(user=None).count() == 2


def test_user_has_one_identity_per_deployment(mia: User) -> None:
    AIRiskIdentity.objects.create(user=mia, deployment="second", userid="user_7")
    with pytest.raises(IntegrityError), transaction.atomic():
        AIRiskIdentity.objects.create(user=mia, userid="user_43")
    assert str(AIRiskIdentity.objects.get(deployment="second")) == "user_7 (second)"


@pytest.mark.parametrize("userid", ["", " user_42", "user_42\n", "a\0", "x" * 256])
def test_staff_cannot_enter_an_impossible_userid(mia: User, userid: str) -> None:
    with pytest.raises(ValidationError, match="userid"):
        AIRiskIdentity(user=mia, deployment="second", userid=userid).full_clean()
    AIRiskIdentity(user=mia, deployment="second", userid="user 42").full_clean()


def test_deleting_a_user_deletes_their_rows_only(mia: User) -> None:
    give_token(mia)
    give_token(None)
    pendings.begin(user=mia, state_hash="1", browser_hash="b")
    mia.delete()
    assert [token.user for token in tokens.all()] == [None]
    assert not AIRiskIdentity.objects.exists()
    assert not pendings.exists()


def test_token_is_found_by_its_owner(mia: User) -> None:
    hers, ours = give_token(mia), give_token(None)
    give_token(mia, deployment="second")
    assert tokens.owned_by(mia.pk, "default").get() == hers
    assert tokens.of_application("default").get() == ours
    assert not tokens.of_application("second").exists()
    # Nobody, or a user who was not saved, is not the application.
    assert not tokens.owned_by(None, "default").exists()


def test_token_is_named_after_its_owner(mia: User) -> None:
    assert str(give_token(mia)) == "user_42 (default)"
    assert str(give_token(None, deployment="second")) == "the application (second)"


def test_rows_are_read_where_they_are_written(settings: "Settings") -> None:
    settings.DATABASE_ROUTERS = [_Replica()]
    for objects in (AIRiskIdentity.objects, tokens, pendings):
        assert objects.all().db == "replica"
        assert objects.primary().db == "default"


# The encrypted token


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


def test_token_is_encrypted_however_it_is_stored(stored: AIRiskToken) -> None:
    assert stored.access_token == TOKEN
    assert stored.sealed.startswith("gAAAA")
    assert len(stored.key_id) == 12
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM airisk_oauth_airisktoken")
        assert TOKEN not in repr(cursor.fetchall())


def test_plain_token_is_in_the_property_only(stored: AIRiskToken) -> None:
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


def test_plain_token_is_not_kept_in_memory(mia: User) -> None:
    token = AIRiskToken(user=mia, userid="user_42", **SEALED)
    assert token.access_token == TOKEN
    assert TOKEN not in repr(vars(token)) + repr(pickle.dumps(token))


def test_form_shows_no_hidden_column(stored: AIRiskToken) -> None:
    assert {"sealed", "key_id", "lease", "lease_until", "access_token"}.isdisjoint(model_to_dict(stored))


def test_everything_but_the_token_has_a_default() -> None:
    before = timezone.now()
    token = tokens.create(**SEALED)
    empty = {name: value for name, value in model_to_dict(token).items() if value not in ("", None, 0)}
    moments = [empty.pop(name) for name in ("obtained_at", "renewed_at", "last_used_at")]
    assert empty == {"id": token.pk, "deployment": "default"}
    assert all(before <= moment <= timezone.now() for moment in moments)


def test_user_key_of_any_type_is_the_same_owner(mia: User) -> None:
    token = tokens.create(user_id=f"0{mia.pk}", userid="user_42", **SEALED)
    assert token.access_token == as_stored(token).access_token == TOKEN
    assert token.owner == ("default", str(mia.pk), "user_42")


def test_unsaved_user_cannot_have_a_token() -> None:
    with pytest.raises(ValueError, match="Save the user") as raised:
        AIRiskToken(user=User(username="tom"), userid="user_42", **SEALED)
    assert TOKEN not in str(raised.value)


@pytest.mark.parametrize("change", ["userid", "deployment", "user", "application"])
def test_moved_token_cannot_be_decrypted(mia: User, change: str) -> None:
    token = give_token(mia)
    [tom] = new_users(1)
    changes: dict[str, dict[str, Any]] = {
        "userid": {"userid": "user_43"},
        "deployment": {"deployment": "second"},
        "user": {"user": tom},
        "application": {"user": None},
    }
    tokens.filter(pk=token.pk).update(**changes[change])
    with pytest.raises(Unreadable):
        _ = as_stored(token).access_token


def test_row_without_a_token_has_none_to_read() -> None:
    with pytest.raises(Unreadable):
        _ = tokens.create().access_token


def test_lists_decrypt_no_token(mia: User, settings: "Settings") -> None:
    token = give_token(mia)
    settings.SECRET_KEY = "another key"
    assert list(tokens.all()) == [token]
    with pytest.raises(Unreadable):
        _ = tokens.get().access_token


# Expiry


@pytest.mark.parametrize(
    ("left", "ended"), [(None, False), (HOUR, False), (SKEW * 1.1, False), (SKEW, True), (-HOUR, True)]
)
def test_token_expires_ten_seconds_early(left: timedelta | None, ended: bool) -> None:
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
def test_token_is_renewed_in_its_last_quarter(life: timedelta, renew_before: int, early: timedelta) -> None:
    token = AIRiskToken(renewed_at=NOW - HOUR, expires_at=NOW - HOUR + life)
    assert token.renew_at(renew_before) == NOW - HOUR + life - early


def test_token_without_expiry_is_never_due() -> None:
    assert AIRiskToken().renew_at(300) is None


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
def test_invalid_token_is_refused_unrepeated(token: Any) -> None:
    with pytest.raises(ValueError, match="not an access token") as caught:
        AIRiskToken(**{"access_token": token})  # noqa: PIE804 - a property of the model
    assert "canary" not in str(caught.value)
    stored = AIRiskToken(**SEALED)
    with pytest.raises(ValueError, match="not an access token"):
        stored.access_token = token
    assert stored.access_token == TOKEN


@pytest.mark.parametrize("alias", ["default", "unknown"])
def test_token_records_the_origin_it_is_for(alias: str) -> None:
    [token] = AIRiskToken.objects.bulk_create([AIRiskToken(deployment=alias, **SEALED)])
    assert token.origin == ("https://demo.aicrisk.com:443" if alias == "default" else "")
    assert token.is_from(conf.deployment())
    assert token.is_from(conf.deployment("second")) is (alias == "unknown")


@committing
def test_migration_gives_old_tokens_an_origin() -> None:
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
