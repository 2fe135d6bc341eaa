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
    """Return the rules for the token of this user, or of the application."""
    return StoredToken(conf.deployment(), user or APPLICATION)


def credential(user: User | None = None, rejected: str | None = None) -> Credential:
    """Return what a call of this user, or of the application, is made with, renewed if it has to be.

    :param rejected: a token that AIRisk has just answered with 401.
    """
    return run(Renewal(stored_token(user)).credential(rejected))


def renew_token(user: User | None = None) -> bool:
    """Renew the token of this user, or of the application; false if another process is renewing it."""
    return run(Renewal(stored_token(user)).renew())


def stored(user: User | None = None) -> AIRiskToken:
    """Return the row of the token of this user, or of the application."""
    return AIRiskToken.objects.get(user=user, deployment="default")


def give_token(user: User | None, *, ends_in: float | None = 3600, **values: Any) -> AIRiskToken:
    """Store a token that AIRisk never issued.

    :param ends_in: seconds until it expires, negative if it has expired, ``None`` for a token without an expiry.
    """
    now = timezone.now()
    userid = "" if user is None else "user_42"
    expires_at = None if ends_in is None else now + timedelta(seconds=ends_in)
    defaults = {"userid": userid, "access_token": "stored-token", "expires_at": expires_at}
    if ends_in is not None and ends_in < 3600:
        defaults["renewed_at"] = now + timedelta(seconds=ends_in) - timedelta(hours=1)
    return AIRiskToken.objects.create(user=user, **{**defaults, **values})


def live_token(airisk: World, user: User | None = None, client_id: str = "client-1", **values: Any) -> AIRiskToken:
    """Store a token that AIRisk has issued, and accepts. ``values``: as for :func:`give_token`."""
    token, _expires_at = airisk.new_token(Caller(client_id, None if user is None else "user_42"))
    return give_token(user, access_token=token, **values)


def connected_users(
    number: int, alias: str = "default", *, ends_in: float | None = 60, **values: Any
) -> list[AIRiskToken]:
    """Make this number of connected users, whose tokens all expire at the same moment, and return the tokens.

    :param ends_in: as for :func:`give_token`.
    """
    names = [f"{alias}-{User.objects.count() + index}" for index in range(number)]
    # MySQL returns no keys of rows that were created together.
    User.objects.bulk_create(User(username=name) for name in names)
    users = list(User.objects.filter(username__in=names).order_by("pk"))
    AIRiskIdentity.objects.bulk_create(
        AIRiskIdentity(user=user, deployment=alias, userid=user.username) for user in users
    )
    now = timezone.now()
    every = {
        "deployment": alias,
        "access_token": "stored-token",
        "expires_at": None if ends_in is None else now + timedelta(seconds=ends_in),
        "renewed_at": now - timedelta(hours=1),
        **values,
    }
    AIRiskToken.objects.bulk_create(AIRiskToken(user=user, userid=user.username, **every) for user in users)
    return list(AIRiskToken.objects.filter(user__in=users, deployment=alias).order_by("pk"))


def renewed_of(tokens: list[AIRiskToken]) -> list[bool]:
    """Return for each of these tokens whether its row now holds another one."""
    rows = {row.userid: row for row in AIRiskToken.objects.all()}
    return [rows[token.userid].access_token != "stored-token" for token in tokens]


def token_requests(airisk: World) -> list[JournalEntry]:
    """Return the requests that reached AIRisk's token endpoint."""
    return [seen for seen in airisk.journal if seen.endpoint == "/api/oauth2/Token"]


def api_statuses(airisk: World) -> list[int]:
    """Return the status of each response of AIRisk's API, without the OAuth endpoints."""
    return [seen.status for seen in airisk.journal if not seen.endpoint.startswith("/api/oauth2")]
