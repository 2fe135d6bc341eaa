"""Sends e-mails by Django's mail. A mail server that fails costs the e-mails, which is logged, and nothing else."""

import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final, NamedTuple

from django.core import mail

from ..events import log

logger = logging.getLogger("airisk_oauth.notices")

#: After so many failures in a row the mail server is not tried again.
GIVE_UP_AFTER: Final = 3
#: How long to wait for the mail server where the site's settings set no limit, in seconds.
TIMEOUT: Final = 10.0


class Letter(NamedTuple):
    """An e-mail to be written and sent.

    :ivar user_id: of the user it is for; ``None``: for the managers.
    :ivar deployment: alias; of several, separated by commas.
    :ivar write: returns the e-mail, or ``None`` where there is none to send.
    """

    user_id: Any
    deployment: str
    write: Callable[[], mail.EmailMessage | None]


def deliver(letters: Iterable[Letter]) -> None:
    """Send these, all by one connection. Nothing is raised."""
    connection: Any = None
    failures: list[Exception] = []
    for letter in letters:
        if len(failures) < GIVE_UP_AFTER:
            try:
                message = letter.write()
                if message is not None:
                    connection = connection or _connect()
                    connection.send_messages([message])
                    failures = []
                continue
            except Exception as error:  # noqa: BLE001 - templates, backends and mail servers fail in their own ways
                failures.append(error)
                _close(connection)
                connection = None
        log_failure(letter.user_id, letter.deployment, failures[-1])
    _close(connection)


def log_failure(user_id: Any, deployment: str, error: Exception) -> None:
    # Without the error's words: they may repeat an address.
    message = "An e-mail about a lost connection to deployment %(deployment)s was not sent: %(error)s"
    name = type(error).__name__
    log(logger, logging.WARNING, "notice.failed", message, user_id=user_id, deployment=deployment, error=name)


def _connect() -> Any:
    # Since Django 6.1 a site may have several mailers.
    mailers: Any = getattr(mail, "mailers", None)
    connection: Any = mail.get_connection() if mailers is None else mailers.default
    if getattr(connection, "timeout", TIMEOUT) is None:
        connection.timeout = TIMEOUT
    connection.open()
    return connection


def _close(connection: Any) -> None:
    if connection is not None:
        with suppress(Exception):
            connection.close()
