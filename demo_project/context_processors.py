"""What every page of the demo may ask for."""

from django.apps import apps
from django.conf import settings
from django.http import HttpRequest


def sandbox(request: HttpRequest) -> dict[str, bool]:
    """Tell whether AIRisk is the built-in sandbox, which answers in development only."""
    return {"sandbox": settings.DEBUG and apps.is_installed("airisk_oauth.sandbox")}
