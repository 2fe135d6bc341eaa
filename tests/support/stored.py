"""What the database holds."""

from typing import Any

from django.apps import apps

from airisk_oauth.models import AIRiskToken, PendingAuthorization


def rows_of_flows_and_tokens() -> list[dict[str, Any]]:
    """Return the columns of every pending authorization and every token."""
    rows = (*PendingAuthorization.objects.order_by("pk").values(), *AIRiskToken.objects.order_by("pk").values())
    return [dict(row) for row in rows]


def everything_stored() -> str:
    """Return every column of every row of every model, as the database holds it."""
    return repr([list(model._base_manager.values_list()) for model in apps.get_models()])
