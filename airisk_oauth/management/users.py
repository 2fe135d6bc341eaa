"""Users as people name them to a command."""

from typing import Any

from django.contrib.auth import get_user_model


def find_user(name: str) -> Any:
    """Return the user with this natural key, which is the username where the user model's manager knows no such key.

    :raises django.core.exceptions.ObjectDoesNotExist: there is none, as the user model's own ``DoesNotExist``.
    """
    model: Any = get_user_model()
    users = model._default_manager
    by_natural_key = getattr(users, "get_by_natural_key", None)
    return by_natural_key(name) if by_natural_key else users.get(**{model.USERNAME_FIELD: name})
