"""What can be wrong with ``AIRISK_OAUTH_NOTIFY``, as system checks."""

from collections.abc import Iterator

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004 - Django's own name

from .options import options, problems


def check_notices() -> Iterator[CheckMessage]:
    found = list(problems())
    for message, hint in found:
        yield Error(message, hint=hint, id="airisk_oauth.E009")
    if not found and options().managers and not settings.MANAGERS:
        yield Warning(
            "AIRISK_OAUTH_NOTIFY asks for e-mails to the managers, and there are none.",
            hint="Set MANAGERS, or 'managers' to False.",
            id="airisk_oauth.W012",
        )
