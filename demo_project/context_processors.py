"""What every page of the demo may ask for."""

from typing import Any

from django.apps import apps
from django.conf import settings
from django.http import HttpRequest

from . import trials


def sandbox(request: HttpRequest) -> dict[str, Any]:
    """Tell whether AIRisk is the built-in sandbox, which answers in development only, and what is tried with it."""
    if not settings.DEBUG or not apps.is_installed("airisk_oauth.sandbox"):
        return {"sandbox": False}
    return {"sandbox": True, "under_way": trials.under_way()}
