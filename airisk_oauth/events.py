"""Log events, with stable names and fields that contain no secret.

A log record has its event and the fields as attributes, so that a formatter can write them as JSON and an alert can
count them, whatever the message says. ``docs/monitoring.md`` lists them all. No record contains a ``userid``, which
identifies a person on AIRisk; anyone who is allowed to know it can look it up by ``token_id``.
"""

import logging
from typing import Any, Final, Literal, Protocol

from django.dispatch import Signal

_renewal_logger = logging.getLogger("airisk_oauth.renewal")
_settings_logger = logging.getLogger("airisk_oauth.settings")

#: Sent with each ``event`` and its ``fields``, logged or not: metrics are made of these.
occurred: Final = Signal()

Event = Literal[
    "call.finished",
    "call.replayed",
    "callback.rejected",
    "connection.failed",
    "connection.lost",
    "connection.restored",
    "notice.failed",
    "oauth.called",
    "renewal.finished",
    "setting.restored",
    "setting.unavailable",
    "sweep.client_refused",
    "sweep.database_wait",
    "sweep.finished",
    "sweep.needs_person",
    "sweep.userid_failed",
    "token.disconnected",
    "token.early_renewal_failed",
    "token.not_written",
    "token.obtained",
    "token.renewal_failed",
    "token.renewed",
    "token.unreadable",
]


class _Token(Protocol):
    pk: Any
    user_id: Any
    deployment: str


def log(
    logger: logging.Logger,
    level: int,
    event: Event,
    message: str,
    *,
    token: _Token | None = None,
    why: Exception | None = None,
    **fields: Any,
) -> None:
    """Log an event.

    :param message: a ``%`` format with the names of fields, ``%(why)s`` for the message of an error, and ``%(owner)s``
        for the user of ``token`` or the application.
    :param token: adds ``token_id``, ``user_id`` and ``deployment``.
    :param why: an error; adds its class as ``error``, and for a refusal ``airisk_status``, ``airisk_reason`` and
        ``airisk_trace_id``.
    :param fields: further fields, by name.
    """
    if token is not None:
        fields |= {"token_id": token.pk, "user_id": token.user_id, "deployment": token.deployment}
    if why is not None:
        fields["error"] = type(why).__name__
        fields |= getattr(why, "log_fields", {})
    # Only types that any log service accepts; and as a plain string, because a Secret hides itself in a repr.
    plain = {name: value if isinstance(value, int | float | None) else str(value) for name, value in fields.items()}
    occurred.send_robust(None, event=event, fields=plain)
    if logger.isEnabledFor(level):
        path, line, function, _stack = logger.findCaller(stacklevel=2)
        args = ({**plain, "why": str(why), "owner": _owner(fields.get("user_id"))},)
        record = logger.makeRecord(logger.name, level, path, line, message, args, None, function)
        # Not as `extra`, which raises if the site's own record factory has set a field of the same name.
        vars(record).update(plain, event=event)
        logger.handle(record)


def _owner(user_id: Any) -> str:
    return "the application" if user_id is None else f"user {user_id}"


def log_not_written(token: _Token, error: Exception) -> None:
    """Log that the database failed to write a change of a token."""
    message = "A change of AIRisk token %(token_id)s of %(owner)s on %(deployment)s could not be written: %(why)s"
    log(_renewal_logger, logging.WARNING, "token.not_written", message, token=token, why=error)


def log_setting(setting: str, function: str, error: str | None) -> None:
    """Log that the function a setting names has begun to fail, or that it works again.

    :param error: the name of an exception class, never its message, which may hold a secret; ``None``: it works again.
    """
    fields: dict[str, Any] = {"setting": setting, "function": function}
    if error is None:
        message = "%(setting)s: %(function)s works again"
        log(_settings_logger, logging.INFO, "setting.restored", message, **fields)
        return
    message = "%(setting)s: %(function)s fails (%(error)s). What it returned before, if anything, stays in use"
    log(_settings_logger, logging.ERROR, "setting.unavailable", message, error=error, **fields)


def log_unreadable(token: _Token, error: Exception) -> None:
    """Log that no key of this process decrypts a token."""
    message = "AIRisk token %(token_id)s of %(owner)s on %(deployment)s cannot be decrypted: %(why)s"
    log(_renewal_logger, logging.WARNING, "token.unreadable", message, token=token, why=error)
