"""Where there is no request: receivers, tasks, scripts."""

import requests
from django.contrib.auth.models import User
from django.dispatch import receiver

from airisk_oauth import AIRiskAuth, AIRiskSession, AsyncAIRiskClient
from airisk_oauth.exceptions import AIRiskError
from airisk_oauth.models import AIRiskIdentity, AIRiskToken
from airisk_oauth.refresh import refresh_tokens
from airisk_oauth.signals import renewal_failed, token_obtained


@receiver(token_obtained)
def welcome(sender: type[AIRiskToken], user_id: int | None, deployment: str, **kwargs: object) -> None:
    if user_id is not None:
        User.objects.get(pk=user_id).email_user("Connected", f"You are connected to {deployment}.")


@receiver(renewal_failed, sender=AIRiskToken)
def report(user_id: int | None, error: AIRiskError, **kwargs: object) -> None:
    print(user_id, error)


def enter(user: User, userid: str) -> AIRiskIdentity:
    return AIRiskIdentity.objects.create(user=user, userid=userid)


def agents_of(user: User) -> list[str]:
    with AIRiskSession.for_user(user) as airisk:
        return [agent["name"] for agent in airisk.get("/api/Chat/ListAgents").json()]


def status_of_site() -> int:
    return requests.get("https://demo.aicrisk.com/api/Echo", auth=AIRiskAuth.for_application(), timeout=10).status_code


async def conversations_of(user: User) -> int:
    async with AsyncAIRiskClient.for_user(user, "second") as airisk:
        return (await airisk.get("/api/GetConversations")).status_code


def renew() -> object:
    return refresh_tokens("15m", "default")["renewed"]
