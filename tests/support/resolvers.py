"""Functions for the option ``USERID``."""

from typing import Any

from django.contrib.auth.models import User
from django.db import InterfaceError

#: What ``next_answer`` returns, one answer for each call.
answers: list[str | None] = []


def next_answer(user: Any, deployment: str) -> str | None:
    return answers.pop(0)


def by_name(user: User, deployment: str) -> str | None:
    """Return the username; a resolver without ``many``, which fails for some users."""
    if user.last_name == "Broken":
        raise InterfaceError("the directory is down")
    if user.last_name == "Faulty":
        raise AttributeError("profile")
    return {"Nobody": None, "Wrong": " no userid "}.get(user.last_name, user.username)
