"""Rows as tests store and read them."""

from datetime import timedelta
from typing import Any

from django.contrib.auth.models import User
from django.utils import timezone

from airisk_oauth.models import AIRiskToken
from airisk_oauth.oauth.messages import Secret, TokenGrant


def new_grant(token: str = "new-token", expires_in: timedelta | None = timedelta(hours=1)) -> TokenGrant:
    """Return what AIRisk grants, ``None`` for a token without an expiry."""
    return TokenGrant(Secret(token), None if expires_in is None else timezone.now() + expires_in)


def new_users(number: int) -> list[User]:
    return [User.objects.create_user(f"user-{number}") for number in range(number)]


def as_stored(row: AIRiskToken) -> AIRiskToken:
    found: AIRiskToken = AIRiskToken.objects.get(pk=row.pk)
    return found


def pks(rows: list[AIRiskToken]) -> set[Any]:
    return {row.pk for row in rows}
