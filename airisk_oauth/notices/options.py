"""The setting ``AIRISK_OAUTH_NOTIFY``: who gets an e-mail about a lost connection. Read live."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string


class Options(NamedTuple):
    """What the setting says.

    :ivar users: whether the user whose connection was lost gets an e-mail.
    :ivar managers: whether ``MANAGERS`` get one.
    :ivar language: dotted path of a function that takes a user and returns a language code, or ``None`` for
        ``LANGUAGE_CODE``.
    """

    users: bool = False
    managers: bool = False
    language: str | None = None

    def language_of(self, user: Any) -> str:
        """Return the language to write to this user in."""
        code: str | None = None if self.language is None else import_string(self.language)(user)
        return code or settings.LANGUAGE_CODE


def options() -> Options:
    """Return what the setting says.

    :raises ImproperlyConfigured: something in it is wrong.
    """
    for message, hint in problems():
        raise ImproperlyConfigured(f"{message} {hint}")
    return Options(**getattr(settings, "AIRISK_OAUTH_NOTIFY", {}))


def problems() -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the setting, each with a hint."""
    configured = getattr(settings, "AIRISK_OAUTH_NOTIFY", {})
    if not isinstance(configured, Mapping):
        yield "AIRISK_OAUTH_NOTIFY must be a dictionary.", f"Its keys are {', '.join(_RULES)}."
        return
    for key, value in configured.items():
        if key not in _RULES:
            yield f"AIRISK_OAUTH_NOTIFY has an unknown key {key!r}.", f"Known are {', '.join(_RULES)}."
        elif not _RULES[key][0](value):
            yield f"AIRISK_OAUTH_NOTIFY has a wrong {key!r}.", f"Set it to {_RULES[key][1]}."


def _is_switch(value: object) -> bool:
    return isinstance(value, bool)


def _is_function_or_none(value: object) -> bool:
    if value is None:
        return True
    try:
        return isinstance(value, str) and callable(import_string(value))
    except ImportError:
        return False


_RULES: dict[Any, tuple[Callable[[object], bool], str]] = {
    "users": (_is_switch, "True or False"),
    "managers": (_is_switch, "True or False"),
    "language": (_is_function_or_none, "the dotted path of a function (user) -> language code, or None"),
}
