"""The setting ``AIRISK_OAUTH``, read on every use and turned into frozen :class:`Deployment` objects.

A table in :mod:`airisk_oauth.rules` holds the rule for each option. Whatever breaks a rule is a :class:`Problem`: a
system check reports all of them, and using a deployment that has one raises ``ImproperlyConfigured``.

Every process imports this module when it starts, so what only a deployment in use needs is imported then.
"""

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from . import addresses
from .rules import REQUIRED, RULES

if TYPE_CHECKING:
    from django.http import HttpRequest

    from .oauth.deployment import Deployment

DEFAULT_ALIAS: Final = "default"
MAX_ALIAS: Final = 64
MAX_USERID: Final = 255


class Problem:
    """A wrong setting.

    :ivar number: of its system check: 5 is ``airisk_oauth.E005``.
    :ivar message: what is wrong.
    :ivar hint: how to fix it.
    """

    def __init__(self, number: int, message: str, hint: str) -> None:
        self.number, self.message, self.hint = number, message, hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}"


def is_userid(value: object) -> bool:
    """Tell whether a value can be a ``userid``: any printable text of 1 to 255 characters without space around it."""
    return isinstance(value, str) and 0 < len(value) <= MAX_USERID and value.isprintable() and value == value.strip()


def deployment(alias: str = DEFAULT_ALIAS) -> "Deployment":
    """Return the deployment with this alias.

    :raises ImproperlyConfigured: there is none, or one of its settings is wrong.
    """
    from .oauth.deployment import Deployment
    from .oauth.messages import Secret

    for problem in problems_of(alias):
        raise ImproperlyConfigured(str(problem))
    options = {key.lower(): value for key, value in _configured()[alias].items()}
    options["base_url"] = options["base_url"].rstrip("/")
    options["client_secret"] = Secret(options["client_secret"])
    return Deployment(alias=alias, **options)


def deployment_origin(alias: str) -> str:
    """Return the origin of the deployment with this alias; empty if there is none or its settings are wrong."""
    try:
        return deployment(alias).origin_text
    except ImproperlyConfigured:
        return ""


def aliases() -> list[str]:
    """Return the aliases of all deployments, in the order of the setting.

    :raises ImproperlyConfigured: there is no ``AIRISK_OAUTH``, or it is not a dictionary.
    """
    return list(_configured())


def page_url(name: str, alias: str = DEFAULT_ALIAS, request: "HttpRequest | None" = None) -> str | None:
    """Return the path of one of our pages for a deployment, or ``None`` if the site does not include our URLs.

    :param name: a URL name from ``airisk_oauth.urls``, without a namespace.
    :param request: if the site includes our URLs more than once, chooses the inclusion that this request is in.
    """
    return addresses.find(name, *([] if alias == DEFAULT_ALIAS else [alias]), request=request)


def is_set(alias: str, option: str) -> bool:
    """Tell whether a deployment's settings contain this option, even if only with its default value.

    :raises ImproperlyConfigured: there is no ``AIRISK_OAUTH``, or it is not a dictionary.
    """
    return option in _configured().get(alias, {})


def problems_of(alias: str) -> Iterator[Problem]:
    """Yield what is wrong with one deployment's settings.

    :raises ImproperlyConfigured: there is no deployment with this alias.
    """
    configured = _configured()
    if alias not in configured:
        raise ImproperlyConfigured(f"AIRISK_OAUTH has no deployment {alias!r}.")
    yield from _problems_of(alias, configured[alias])


def problems() -> Iterator[Problem]:
    """Yield everything that is wrong with ``AIRISK_OAUTH``."""
    try:
        configured = _configured()
    except ImproperlyConfigured as error:
        yield Problem(1, str(error), "See the README of django-airisk-oauth.")
        return
    for alias, options in configured.items():
        yield from _problems_of(alias, options)


def _configured() -> Mapping[str, Any]:
    configured = getattr(settings, "AIRISK_OAUTH", None)
    if not isinstance(configured, Mapping) or not configured:
        raise ImproperlyConfigured("AIRISK_OAUTH must be a dictionary that maps aliases to deployments.")
    if _is_flat(configured):
        raise ImproperlyConfigured(
            'AIRISK_OAUTH has the options of a deployment where aliases belong: put {"default": {...}} around them.'
        )
    return configured


def _is_flat(configured: Mapping[Any, Any]) -> bool:
    """Tell whether options are where aliases belong, and no deployment is beside them."""
    deployments = [key for key, value in configured.items() if isinstance(value, Mapping) and key not in RULES]
    options = [key for key, value in configured.items() if key in REQUIRED and not isinstance(value, Mapping)]
    return bool(options) and not deployments


def _problems_of(alias: object, options: object) -> Iterator[Problem]:
    where = f"AIRISK_OAUTH[{alias!r}]"
    if not isinstance(alias, str) or not re.fullmatch(rf"[-a-zA-Z0-9_]{{1,{MAX_ALIAS}}}", alias):
        hint = f"Use only letters, digits, - and _, at most {MAX_ALIAS} characters."
        yield Problem(2, f"{where}: this alias cannot be part of a URL.", hint)
        return
    if not isinstance(options, Mapping):
        yield Problem(1, f"{where} must be a dictionary.", f"Set at least {', '.join(REQUIRED)} in it.")
        return
    for key in options:
        if key not in RULES:
            yield Problem(3, f"{where} has an unknown key {key!r}.", f"Remove it, or use one of {', '.join(RULES)}.")
    for key, (fault_in, expected) in RULES.items():
        if key not in options:
            if key in REQUIRED:
                yield Problem(4, f"{where} has no {key}.", f"Set it to {expected}.")
        elif (fault := fault_in(options[key])) is not None:
            yield Problem(5, f"{where} has an invalid {key}{fault and f': {fault}'}.", f"Set it to {expected}.")
