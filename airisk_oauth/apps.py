from django.apps import AppConfig


class AIRiskOAuthConfig(AppConfig):
    name = "airisk_oauth"
    verbose_name = "AIRisk"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import checks  # noqa: F401 - registers the system checks
