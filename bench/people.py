"""The benchmark site's database: its tables, connected users, and a count of its queries."""

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


def connected_users(number: int, *, expires_in: float, sealed: bool = True, first: int = 0) -> list[User]:
    """Create users with tokens that are valid for an hour.

    :param expires_in: seconds until the tokens expire; negative if they have expired.
    :param sealed: false if no token will be decrypted; then all have the same text, which is faster.
    :param first: the number of the first of them, which is in their names.
    """
    users = User.objects.bulk_create((User(username=f"user-{i}") for i in range(first, first + number)), BATCH)
    named = [(user, f"airisk-{user.pk}") for user in users]
    AIRiskIdentity.objects.bulk_create((AIRiskIdentity(user=user, userid=userid) for user, userid in named), BATCH)
    any_token = AIRiskToken(user=users[0], access_token="a-token")
    text: dict[str, Any] = {"sealed": any_token.sealed, "key_id": any_token.key_id}
    text |= _hour_until(expires_in)
    tokens = (AIRiskToken(user=user, userid=userid, **text) for user, userid in named)
    if sealed:
        tokens = (
            AIRiskToken(user=user, userid=userid, access_token="a-token", **_hour_until(expires_in))
            for user, userid in named
        )
    AIRiskToken.objects.bulk_create(tokens, BATCH)
    return users


def expire_tokens(expires_in: float, tokens: "QuerySet[AIRiskToken] | None" = None) -> None:
    """Set when these tokens, or all, expire: in so many seconds, an hour after they were renewed."""
    rows = AIRiskToken.objects.all() if tokens is None else tokens
    rows.update(**_hour_until(expires_in), last_used_at=timezone.now())


def _hour_until(expires_in: float) -> dict[str, Any]:
    expires_at = timezone.now() + timedelta(seconds=expires_in)
    return {"expires_at": expires_at, "renewed_at": expires_at - timedelta(hours=1)}


class Queries:
    """Counts the queries of every connection from now on, in any thread, except BEGIN and COMMIT."""

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
