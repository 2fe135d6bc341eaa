"""Users and their tokens."""

from datetime import timedelta
from typing import Any

from django.contrib.auth.models import User
from django.utils import timezone

from airisk_oauth import conf
from airisk_oauth.models import AIRiskIdentity, AIRiskToken
from airisk_oauth.oauth.calls import run
from airisk_oauth.sandbox.world import Caller, JournalEntry, World
from airisk_oauth.tokens.renewal import Credential, Renewal
from airisk_oauth.tokens.stored import APPLICATION, StoredToken


def stored_token(user: User | None = None) -> StoredToken:
    return StoredToken(conf.deployment(), user or APPLICATION)


def credential(user: User | None = None, rejected: str | None = None) -> Credential:
    """What a call of this user, or of the application, is made with."""
    return run(Renewal(stored_token(user)).credential(rejected))


def renew_token(user: User | None = None) -> bool:
    return run(Renewal(stored_token(user)).renew())


def api_statuses(airisk: World) -> list[int]:
    return [seen.status for seen in airisk.journal if not seen.endpoint.startswith("/api/oauth2")]


def connected_users(
    number: int, alias: str = "default", *, ends_in: float | None = 60, **values: Any
) -> list[AIRiskToken]:
    """Create connected users, whose tokens all expire at the same time."""
    names = [f"{alias}-{User.objects.count() + index}" for index in range(number)]
    users = User.objects.bulk_create(User(username=name) for name in names)
    AIRiskIdentity.objects.bulk_create(
        AIRiskIdentity(user=user, deployment=alias, userid=user.username) for user in users
    )
    now = timezone.now()
    ends = None if ends_in is None else now + timedelta(seconds=ends_in)
    every = {
        "deployment": alias,
        "access_token": "stored-token",
        "expires_at": ends,
        "renewed_at": now - timedelta(hours=1),
        **values,
    }
    return AIRiskToken.objects.bulk_create(AIRiskToken(user=user, userid=user.username, **every) for user in users)


def renewed_of(tokens: list[AIRiskToken]) -> list[bool]:
    """Return for each token whether its row contains another one now."""
    rows = {row.userid: row for row in AIRiskToken.objects.all()}
    return [rows[token.userid].access_token != "stored-token" for token in tokens]


def give_token(user: User | None, *, ends_in: float | None = 3600, **values: Any) -> AIRiskToken:
    """Store a token that AIRisk did not issue; ``ends_in`` is in seconds, negative if it has expired."""
    now = timezone.now()
    userid = "" if user is None else "user_42"
    ends = None if ends_in is None else now + timedelta(seconds=ends_in)
    defaults = {"userid": userid, "access_token": "stored-token", "expires_at": ends}
    if ends_in is not None and ends_in < 3600:
        defaults["renewed_at"] = now + timedelta(seconds=ends_in) - timedelta(hours=1)
    return AIRiskToken.objects.create(user=user, **{**defaults, **values})


def stored(user: User | None = None) -> AIRiskToken:
    return AIRiskToken.objects.get(user=user, deployment="default")


def token_requests(airisk: World) -> list[JournalEntry]:
    return [seen for seen in airisk.journal if seen.endpoint == "/api/oauth2/Token"]


def live_token(airisk: World, user: User | None = None, client_id: str = "client-1", **values: Any) -> AIRiskToken:
    """Store a token that AIRisk issued."""
    token, _ends = airisk.new_token(Caller(client_id, None if user is None else "user_42"))
    return give_token(user, access_token=token, **values)
