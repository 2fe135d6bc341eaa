"""The site's data: its tables, users who are connected, and the statements that its connections run."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.db.backends.signals import connection_created
from django.utils import timezone

from airisk_oauth.models import AIRiskIdentity, AIRiskToken

if TYPE_CHECKING:
    from django.db.models import QuerySet

BATCH = 2000


def migrated() -> None:
    call_command("migrate", verbosity=0)


def people_with_tokens(number: int, *, ends_in: float, sealed: bool = True) -> list[User]:
    """Save so many connected users; their tokens, an hour long, end in so many seconds (negative: have ended).

    :param sealed: false where no token is ever opened: then all have the same text, which is quicker.
    """
    users = User.objects.bulk_create((User(username=f"user-{i}") for i in range(number)), BATCH)
    named = [(user, f"airisk-{user.pk}") for user in users]
    AIRiskIdentity.objects.bulk_create((AIRiskIdentity(user=user, userid=userid) for user, userid in named), BATCH)
    any_token = AIRiskToken(user=users[0], access_token="a-token")
    text = {"sealed": any_token.sealed, "key_id": any_token.key_id}
    tokens = (AIRiskToken(user=user, userid=userid, **text) for user, userid in named)
    if sealed:
        tokens = (AIRiskToken(user=user, userid=userid, access_token="a-token") for user, userid in named)
    AIRiskToken.objects.bulk_create(tokens, BATCH)
    end_tokens(ends_in)
    return users


def end_tokens(ends_in: float, tokens: "QuerySet[AIRiskToken] | None" = None) -> None:
    """Let these tokens, or all, end in so many seconds, with nothing known of an earlier renewal."""
    end = timezone.now() + timedelta(seconds=ends_in)
    rows = AIRiskToken.objects.all() if tokens is None else tokens
    rows.update(expires_at=end, renewed_at=end - timedelta(hours=1), last_used_at=timezone.now())


class Queries:
    """Counts the statements of every connection from now on, in any thread, but for BEGIN and COMMIT."""

    def __init__(self) -> None:
        self.count = 0
        connection_created.connect(self._watch)
        self._watch(connection)

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        self.count += 1
        return execute(sql, params, many, context)

    def _watch(self, connection: Any, **_kwargs: Any) -> None:
        if self not in connection.execute_wrappers:
            connection.execute_wrappers.append(self)
