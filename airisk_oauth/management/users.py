"""Users as they are named on a command line."""

from typing import Any

from django.contrib.auth import get_user_model


def find_user(name: str) -> Any:
    """Return the user with this natural key, or with this username if the user model has no natural keys.

    :raises django.core.exceptions.ObjectDoesNotExist: there is no such user; it is the user model's ``DoesNotExist``.
    """
    model: Any = get_user_model()
    users = model._default_manager
    by_natural_key = getattr(users, "get_by_natural_key", None)
    return by_natural_key(name) if by_natural_key else users.get(**{model.USERNAME_FIELD: name})
