from typing import TYPE_CHECKING, Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Tags, register

from .signals import connection_lost

if TYPE_CHECKING:
    from .exceptions import AIRiskError


class AIRiskOAuthConfig(AppConfig):
    name = "airisk_oauth"
    verbose_name = "AIRisk"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        register(check_site, "airisk_oauth")
        register(check_deployment, Tags.security, deploy=True)
        connection_lost.connect(notify, dispatch_uid="airisk_oauth.notify")


# Every process starts with this module. Most of them run no checks and lose no connection: what these need is imported
# then.


def check_site(**kwargs: Any) -> list[CheckMessage]:
    from . import checks

    return [*checks.check_settings(), *checks.check_site()]


def check_deployment(**kwargs: Any) -> list[CheckMessage]:
    from . import checks

    return checks.check_deployment()


def notify(*, user_id: Any, deployment: str, error: "AIRiskError", connect_url: str | None, **_carried: Any) -> None:
    from .notices.gathering import note

    note(user_id, deployment, error, connect_url)
