"""Users as they are named on a command line."""

from collections.abc import Iterable
from typing import Any

from django.contrib.auth import get_user_model
from django.db import Error as DatabaseError


def find_user(name: str) -> Any:
    """Return the user with this natural key, or with this username if the user model has no natural keys.

    :raises django.core.exceptions.ObjectDoesNotExist: there is no such user; it is the user model's ``DoesNotExist``.
    """
    model: Any = get_user_model()
    users = model._default_manager
    by_natural_key = getattr(users, "get_by_natural_key", None)
    return by_natural_key(name) if by_natural_key else users.get(**{model.USERNAME_FIELD: name})


def names_of(user_ids: Iterable[Any]) -> dict[Any, str]:
    """Return the usernames of these users, by user id; none if the database fails."""
    model: Any = get_user_model()
    try:
        return dict(model._base_manager.filter(pk__in=list(user_ids)).values_list("pk", model.USERNAME_FIELD))
    except DatabaseError:
        return {}
