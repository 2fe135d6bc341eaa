"""Views that keep what they wrote, whatever happens later in the request."""

from collections.abc import Callable
from typing import Any, TypeVar

from django.conf import settings
from django.db import transaction

View = TypeVar("View", bound=Callable[..., Any])


def non_atomic(view: View) -> View:
    """Take a view out of ``ATOMIC_REQUESTS``, on every database; a method of an admin class, too."""
    for database in settings.DATABASES:
        view = transaction.non_atomic_requests(using=database)(view)
    return view
