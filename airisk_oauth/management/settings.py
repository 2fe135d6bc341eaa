"""Wrong settings, found before a command begins."""

from typing import Any, Final

from django.core.management.base import BaseCommand, SystemCheckError

#: Exit status of a command that cannot begin.
NOTHING_TRIED: Final = 2


class ChecksSettings(BaseCommand):
    """A command that looks for errors in our settings first, and exits with :data:`NOTHING_TRIED` if it finds one.

    By default ``manage.py`` runs all checks of the site and exits with 1. It prints their warnings, too, which a
    command that cron starts every few minutes must not do, and imports the site's URLs.
    """

    #: The tag with which :mod:`airisk_oauth.apps` registers the check of our settings.
    requires_system_checks = ("airisk_oauth_settings",)

    def check(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().check(*args, **kwargs)
        except SystemCheckError as error:
            error.returncode = NOTHING_TRIED
            raise
