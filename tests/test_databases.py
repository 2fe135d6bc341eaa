"""What databases do differently by themselves, and must do alike here: compare texts, and keep rows unique."""

from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection, connections, models
from django.db.migrations.executor import MigrationExecutor
from django.test import Client
from django.utils import timezone

from airisk_oauth import AIRiskSession, conf
from airisk_oauth.connecting import flow
from airisk_oauth.database.constraints import PartialUniqueConstraint
from airisk_oauth.database.fields import EXACT, ExactCharField, UnsearchableTextField
from airisk_oauth.exceptions import ConnectionRequired
from airisk_oauth.models import AIRiskIdentity, AIRiskToken, PendingAuthorization
from airisk_oauth.oauth.messages import Secret, TokenGrant
from airisk_oauth.sandbox.world import World
from airisk_oauth.tokens.outcomes import store
from airisk_oauth.tokens.status import Status, status_of, with_status
from tests.support.admin import identity_page
from tests.support.database import committing, not_on_sqlite
from tests.support.people import give_token, stored
from tests.support.rows import new_users
from tests.support.threads import at_once

pytestmark = pytest.mark.django_db

on_mysql_only = pytest.mark.skipif(connection.vendor != "mysql", reason="other databases need no migration for this")


# Texts are compared exactly


def test_aliases_are_compared_exactly(mia: User) -> None:
    for user in (mia, None):
        for alias in ("default", "Default", "DEFAULT"):
            give_token(user, deployment=alias)
    AIRiskIdentity.objects.create(user=mia, deployment="Default", userid="user_7")
    assert AIRiskToken.objects.owned_by(mia.pk, "Default").count() == 1
    assert AIRiskToken.objects.of_application("Default").count() == 1
    assert AIRiskIdentity.objects.get(user=mia, deployment="default").userid == "user_42"


def test_other_case_is_another_deployment(airisk: World, settings: Any, mia: User) -> None:
    """Otherwise a token is sent to a server that did not issue it."""
    settings.AIRISK_OAUTH = {**settings.AIRISK_OAUTH, "Default": settings.AIRISK_OAUTH["second"]}
    AIRiskIdentity.objects.create(user=mia, deployment="Default", userid="user_42")
    give_token(mia)
    with pytest.raises(ConnectionRequired), AIRiskSession.for_user(mia, "Default") as session:
        session.get("/api/Echo")
    assert airisk.journal == []


def test_userids_and_tokens_compare_exactly(mia: User) -> None:
    token = give_token(mia)
    assert not AIRiskToken.objects.filter(sealed=token.sealed.swapcase()).exists()
    AIRiskIdentity.objects.filter(user=mia).update(userid="User_42")
    assert status_of(with_status(AIRiskToken.objects.all()).get()) is Status.RECONNECT


@pytest.mark.parametrize(("words", "found"), [("USER_42", True), ("ser_4", True), ("user_43", False)])
def test_search_in_the_admin_ignores_case(admin_client: Client, mia: User, words: str, found: bool) -> None:
    page = admin_client.get(identity_page("changelist"), {"q": words}).content.decode()
    assert ("user_42</a>" in page) is found


def exact_columns() -> set[tuple[str, Any]]:
    found: list[type[models.Model]] = [AIRiskIdentity, AIRiskToken, PendingAuthorization]
    exact = (ExactCharField, UnsearchableTextField)
    return {(each._meta.db_table, f.column) for each in found for f in each._meta.fields if isinstance(f, exact)}


@on_mysql_only
def test_migrations_make_columns_exact() -> None:
    """A later migration that changes such a column has to repeat its collation."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT table_name, column_name FROM information_schema.columns"
            " WHERE table_schema = database() AND table_name LIKE 'airisk%%' AND collation_name = %s",
            [EXACT],
        )
        assert set(cursor.fetchall()) == exact_columns()


def test_only_mysql_needs_a_collation(monkeypatch: pytest.MonkeyPatch) -> None:
    searched = AIRiskIdentity.objects.filter(userid__icontains="mia")
    columns: Any = [AIRiskToken._meta.get_field(name) for name in ("sealed", "userid")]
    for vendor, collation in (("mysql", "utf8mb4_bin"), ("postgresql", None)):
        monkeypatch.setattr(connections["default"], "vendor", vendor)
        assert [each.db_parameters(connection).get("collation") for each in columns] == [collation] * 2
        assert ("COLLATE utf8mb4_general_ci" in str(searched.query)) is (vendor == "mysql")


# The application's one token, without a partial index


def test_database_checks_find_no_problem() -> None:
    """Django warns that MySQL and MariaDB leave a partial constraint out; here they do not."""
    call_command("check", databases=["default"], fail_level="WARNING")


def constraint_sql() -> list[str]:
    """Return the statements that define the constraint with its table, add it, and remove it."""
    [constraint] = [each for each in AIRiskToken._meta.constraints if isinstance(each, PartialUniqueConstraint)]
    editor: Any = connection.schema_editor()
    editor.deferred_sql = []
    ways: Any = [constraint.constraint_sql, constraint.create_sql, constraint.remove_sql]
    return [str(way(AIRiskToken, editor)).replace("`", '"') for way in ways]


def test_constraint_needs_no_partial_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections["default"].features, "supports_partial_indexes", False)
    name = '"airisk_oauth_one_application_token"'
    column = f'{name} bool GENERATED ALWAYS AS (CASE WHEN "user_id" IS NULL THEN 1 END) STORED'
    index = f'UNIQUE INDEX {name} ("deployment", {name})'
    assert constraint_sql() == [
        f"{column}, {index}",
        f'ALTER TABLE "airisk_oauth_airisktoken" ADD {column}, ADD {index}',
        f'ALTER TABLE "airisk_oauth_airisktoken" DROP INDEX {name}, DROP COLUMN {name}',
    ]


def test_partial_index_is_used_where_it_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections["default"].features, "supports_partial_indexes", True)
    assert not any("GENERATED" in sql or "COLUMN" in sql for sql in constraint_sql())


@on_mysql_only
@committing
@pytest.mark.parametrize("with_token", [True, False], ids=["tokens", "empty"])
def test_migration_keeps_one_application_token(with_token: bool) -> None:
    """Of the rows that simultaneous first callers had stored, none of which could be used any more."""
    executor = MigrationExecutor(connection)
    executor.migrate([("airisk_oauth", "0004_lost_at")])
    now = timezone.now()
    for number, alias in enumerate(["default", "second", "default", "default", "default"]):
        values = {"access_token": f"token-{number}"} if with_token and number < 4 else {}
        # The last row, without a token, is the newest.
        received = now - timedelta(hours=1 if number in (0, 3) else 0)
        AIRiskToken.objects.create(deployment=alias, renewed_at=received, **values)
    MigrationExecutor(connection).migrate(executor.loader.graph.leaf_nodes("airisk_oauth"))
    assert AIRiskToken.objects.filter(user=None).count() == 2
    if with_token:
        assert stored().access_token == "token-2"
    # Migrating again, as the documentation says of a wrong BASE_URL.
    executor.migrate([("airisk_oauth", "0002_sealing_policy")])
    MigrationExecutor(connection).migrate(executor.loader.graph.leaf_nodes("airisk_oauth"))
    test_database_checks_find_no_problem()


@committing
@not_on_sqlite
def test_sixty_first_connections_do_not_deadlock() -> None:
    users = new_users(60)
    AIRiskIdentity.objects.bulk_create(AIRiskIdentity(user=user, userid=user.username) for user in users)

    def connect(user: User) -> None:
        flow.begin(conf.deployment(), user, browser="browser")
        store(user.pk, "default", user.username, TokenGrant(Secret("token"), None))

    at_once(*(partial(connect, user) for user in users))
    assert AIRiskToken.objects.count() == PendingAuthorization.objects.count() == 60
