"""What the option ``language`` of ``AIRISK_OAUTH_NOTIFY`` can name."""

from typing import Any


def of_last_name(user: Any) -> str | None:
    """Return what the site keeps where a real one would have a column for it; an error for somebody Faulty."""
    if user.last_name == "Faulty":
        raise LookupError(user.email)
    return user.last_name or None


def none_at_all() -> None:
    """Take no user, as a language must."""
