from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Tags, register


class AIRiskOAuthConfig(AppConfig):
    name = "airisk_oauth"
    verbose_name = "AIRisk"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        register(check_site, "airisk_oauth")
        register(check_deployment, Tags.security, deploy=True)


# Every process starts with this module, and most of them run no checks: those are imported when they run.


def check_site(**kwargs: Any) -> list[CheckMessage]:
    from . import checks

    return [*checks.check_settings(), *checks.check_site()]


def check_deployment(**kwargs: Any) -> list[CheckMessage]:
    from . import checks

    return checks.check_deployment()
