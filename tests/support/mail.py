"""The site's mail server, and what it was given."""

import smtplib
from typing import Any

import django
from django.core.mail.backends.locmem import EmailBackend


def send_by(settings: Any, backend: str, **options: Any) -> None:
    """Let the site send e-mails by this backend, with options such as ``host`` and ``port``."""
    if django.VERSION >= (6, 1):
        settings.MAILERS = {"default": {"BACKEND": backend, "OPTIONS": options}}
        return
    settings.EMAIL_BACKEND = backend
    for name, value in options.items():
        setattr(settings, f"EMAIL_{name.upper()}", value)


class Counting(EmailBackend):
    """Keeps e-mails in the outbox, counts its connections, and fails while it is told to.

    :ivar failing: how many of the next e-mails it refuses.
    """

    opened = 0
    closed = 0
    failing = 0

    def open(self) -> bool:
        Counting.opened += 1
        return True

    def close(self) -> None:
        Counting.closed += 1

    def send_messages(self, messages: Any) -> int:
        if Counting.failing:
            Counting.failing -= 1
            raise smtplib.SMTPRecipientsRefused({messages[0].to[0]: (550, b"No such user")})
        return super().send_messages(messages)
