"""The sandbox as a Django app, and the check that keeps it out of production."""

from typing import Any

from django.apps import AppConfig
from django.core import checks
from django.utils.translation import gettext_lazy as _


class SandboxConfig(AppConfig):
    """A make-believe AIRisk for development: no models, no migrations, nothing that outlives the process."""

    name = "airisk_oauth.sandbox"
    label = "airisk_oauth_sandbox"
    verbose_name = _("AIRisk sandbox")

    def ready(self) -> None:
        # Here, and not on import: the check speaks of an app that is installed, not of a module someone read.
        checks.register(sandbox_is_installed, checks.Tags.security, deploy=True)


def sandbox_is_installed(**kwargs: Any) -> list[checks.CheckMessage]:
    """Fail `check --deploy`; see https://docs.djangoproject.com/en/stable/howto/deployment/checklist/."""
    return [
        checks.Error(
            "The AIRisk sandbox is installed; it hands out tokens to anyone.",
            hint="Remove 'airisk_oauth.sandbox' from INSTALLED_APPS, and its URLs, wherever DEBUG is off.",
            id="airisk_oauth.E100",
        )
    ]
