"""What is stored in the database."""

from typing import Any

from django.apps import apps

from airisk_oauth.models import AIRiskToken, PendingAuthorization


def rows_of_flows_and_tokens() -> list[dict[str, Any]]:
    """Return all rows of pending authorizations and tokens."""
    return [*PendingAuthorization.objects.order_by("pk").values(), *AIRiskToken.objects.order_by("pk").values()]


def everything_stored() -> str:
    """Return every column of every row, as it is in the database."""
    return repr([list(model._base_manager.values_list()) for model in apps.get_models()])
