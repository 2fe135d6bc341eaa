"""Context for every page of the demo."""

from typing import Any

from django.apps import apps
from django.conf import settings
from django.http import HttpRequest

from . import trials


def sandbox(request: HttpRequest) -> dict[str, Any]:
    """Tell the templates whether AIRisk is the built-in sandbox, and which trial is running."""
    if not settings.DEBUG or not apps.is_installed("airisk_oauth.sandbox"):
        return {"sandbox": False}
    return {"sandbox": True, "trial_status": trials.status()}
