from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class AIRiskOAuthConfig(AppConfig):
    name = "airisk_oauth"
    verbose_name = _("AIRisk")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import checks  # noqa: F401 - registers the system checks
