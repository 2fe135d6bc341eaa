"""The site's data: its tables, users who are connected, and the statements that its connections run."""

from datetime import timedelta
from typing import Any

from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.db.backends.signals import connection_created
from django.utils import timezone

from airisk_oauth.models import AIRiskIdentity, AIRiskToken

BATCH = 2000


def migrated() -> None:
    call_command("migrate", verbosity=0)


def people_with_tokens(number: int, *, ends_in: float) -> list[User]:
    """Save so many connected users; their tokens, an hour long, end in so many seconds (negative: have ended)."""
    users = User.objects.bulk_create((User(username=f"user-{i}") for i in range(number)), BATCH)
    named = [(user, f"airisk-{user.pk}") for user in users]
    AIRiskIdentity.objects.bulk_create((AIRiskIdentity(user=user, userid=userid) for user, userid in named), BATCH)
    AIRiskToken.objects.bulk_create(
        (AIRiskToken(user=user, userid=userid, access_token="a-token") for user, userid in named), BATCH
    )
    end_tokens(ends_in)
    return users


def end_tokens(ends_in: float) -> None:
    """Let all tokens end in so many seconds, with nothing known of an earlier renewal."""
    end = timezone.now() + timedelta(seconds=ends_in)
    AIRiskToken.objects.update(expires_at=end, renewed_at=end - timedelta(hours=1), last_used_at=timezone.now())


def counted_queries() -> list[str]:
    """Return a list that every statement of every connection is added to from now on, in any thread."""
    queries: list[str] = []

    def count(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        queries.append(sql)
        return execute(sql, params, many, context)

    def watch(connection: Any, **_kwargs: Any) -> None:
        if count not in connection.execute_wrappers:
            connection.execute_wrappers.append(count)

    connection_created.connect(watch, weak=False)
    watch(connection)
    return queries
