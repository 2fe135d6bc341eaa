"""The sandbox as a Django app, and the check that keeps it out of production."""

from typing import Any

from django.apps import AppConfig
from django.core import checks
from django.utils.translation import gettext_lazy as _


class SandboxConfig(AppConfig):
    """A simulated AIRisk for development, without models or migrations: it keeps everything in memory."""

    name = "airisk_oauth.sandbox"
    label = "airisk_oauth_sandbox"
    verbose_name = _("AIRisk sandbox")

    def ready(self) -> None:
        # Not on import: the check must fail only if the app is installed, and not if some code imports this module.
        checks.register(sandbox_is_installed, checks.Tags.security, deploy=True)


def sandbox_is_installed(**kwargs: Any) -> list[checks.CheckMessage]:
    """Fail `check --deploy`; see https://docs.djangoproject.com/en/stable/howto/deployment/checklist/."""
    return [
        checks.Error(
            "The AIRisk sandbox is installed: it gives tokens to anyone who asks.",
            hint="Remove 'airisk_oauth.sandbox' from INSTALLED_APPS, and its URLs, if DEBUG is off.",
            id="airisk_oauth.E100",
        )
    ]
