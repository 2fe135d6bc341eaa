from typing import Any

from django.apps import AppConfig


class AIRiskOAuthConfig(AppConfig):
    name = "airisk_oauth"
    verbose_name = "AIRisk"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import checks  # noqa: F401 - registers the system checks
        from .signals import connection_lost

        connection_lost.connect(_notify, dispatch_uid="airisk_oauth.notify")


def _notify(*, user_id: Any, deployment: str, error: Any, connect_url: str | None, **_carried: Any) -> None:
    # Imported here: most processes never lose a connection.
    from .notices.gathering import note

    note(user_id, deployment, error, connect_url)
