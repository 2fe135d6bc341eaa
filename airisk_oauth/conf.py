"""The setting ``AIRISK_OAUTH``, read on every use and turned into frozen :class:`Deployment` objects.

It may name a function that returns the deployments; see :mod:`airisk_oauth.providers.source`.

A table in :mod:`airisk_oauth.rules` holds the rule for each option. Whatever breaks a rule is a :class:`Problem`: a
system check reports all of them, and using a deployment that has one raises ``ImproperlyConfigured``.

Every process imports this module when it starts, so what only a deployment in use needs is imported then.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, cast

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from . import addresses
from .events import log_setting
from .providers.source import SettingUnavailable, Source
from .rules import REQUIRED, RULES

if TYPE_CHECKING:
    from django.http import HttpRequest

    from .oauth.deployment import Deployment

DEFAULT_ALIAS: Final = "default"
MAX_ALIAS: Final = 64
MAX_USERID: Final = 255
MAX_LABEL: Final = 150


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


def is_alias(value: object) -> bool:
    """Tell whether a value can be an alias, which is a part of URLs."""
    return isinstance(value, str) and re.fullmatch(rf"[-a-zA-Z0-9_]{{1,{MAX_ALIAS}}}", value) is not None


def deployment(alias: str = DEFAULT_ALIAS) -> "Deployment":
    """Return the deployment with this alias.

    :raises ImproperlyConfigured: there is none, or one of its settings is wrong.
    :raises SettingUnavailable: the function that returns the deployments fails; a kind of ``ImproperlyConfigured``.
    """
    from .oauth.deployment import Deployment
    from .oauth.messages import Secret

    for problem in problems_of(alias):
        raise ImproperlyConfigured(str(problem))
    options = {key.lower(): value for key, value in _options_of(alias).items()}
    options["base_url"] = options["base_url"].rstrip("/")
    options["client_secret"] = Secret(options["client_secret"])
    return Deployment(alias=alias, **options)


def deployment_origin(alias: str) -> str:
    """Return the origin of the deployment with this alias; empty if there is none or its settings are wrong.

    :raises SettingUnavailable: the function that returns the deployments fails.
    """
    try:
        return deployment(alias).origin_text
    except SettingUnavailable:
        raise
    except ImproperlyConfigured:
        return ""


def aliases() -> list[str]:
    """Return the aliases of all deployments, in the order of the setting.

    :raises ImproperlyConfigured: there is no ``AIRISK_OAUTH``, or it is not a dictionary.
    """
    return list(_configured())


def known_aliases() -> list[str]:
    """Return the same, but none while the function that returns the deployments fails."""
    try:
        return aliases()
    except SettingUnavailable:
        return []


def is_unknown(alias: str) -> bool:
    """Tell whether there is no deployment with this alias; false while that cannot be found out.

    :raises ImproperlyConfigured: there is no ``AIRISK_OAUTH``, or it is not a dictionary.
    """
    try:
        return alias not in _configured(alias)
    except SettingUnavailable:
        return False


def usable(names: Iterable[str]) -> "list[Deployment]":
    """Return the deployments with these aliases.

    A function may return a deployment that is wrong, in a tenant's row say. It is left out, for the sake of the others.

    :raises ImproperlyConfigured: a deployment that is written in the settings is wrong.
    """
    if DEPLOYMENTS.path is None:
        return [deployment(alias) for alias in names]
    found = []
    for alias in names:
        with suppress(ImproperlyConfigured):
            found.append(deployment(alias))
    return found


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
    return option in _configured(alias).get(alias, {})


def problems_of(alias: str) -> Iterator[Problem]:
    """Yield what is wrong with one deployment's settings.

    :raises ImproperlyConfigured: there is no deployment with this alias.
    """
    yield from _problems_of(alias, _options_of(alias))


def problems() -> Iterator[Problem]:
    """Yield everything that is wrong with ``AIRISK_OAUTH``; a function that it names is called.

    :raises SettingUnavailable: that function fails.
    """
    try:
        configured = _configured()
    except SettingUnavailable:
        raise
    except ImproperlyConfigured as error:
        yield Problem(1, str(error), "See the README of django-airisk-oauth.")
        return
    for alias, options in configured.items():
        yield from _problems_of(alias, options)


def _options_of(alias: str) -> Any:
    """Return what the setting has for a deployment, which can be anything.

    :raises ImproperlyConfigured: there is no deployment with this alias.
    """
    try:
        return _configured(alias)[alias]
    except KeyError:
        raise ImproperlyConfigured(f"AIRISK_OAUTH has no deployment {alias!r}.") from None


def _configured(alias: str | None = None) -> Mapping[str, Any]:
    """Return the dictionary of deployments.

    :param alias: one that is needed: a function is called again if its last answer does not have it.
    """
    if DEPLOYMENTS.path is None:
        # Not as a variable: crash reports show those of every function that an error passes through.
        if fault := _fault_in(getattr(settings, "AIRISK_OAUTH", None) or None):
            raise ImproperlyConfigured(fault)
        return cast("Mapping[str, Any]", settings.AIRISK_OAUTH)
    return DEPLOYMENTS.value() if alias is None else DEPLOYMENTS.value_with(alias, lambda found: alias in found)


def _fault_in(configured: object) -> str | None:
    if not isinstance(configured, Mapping):
        return "AIRISK_OAUTH must be a dictionary that maps aliases to deployments."
    if _is_flat(configured):
        return 'AIRISK_OAUTH has the options of a deployment where aliases belong: put {"default": {...}} around them.'
    return None


#: A function is called at most every ten seconds, and at most every second for an alias that it did not return. It may
#: return an empty dictionary: a site may not have any tenant yet.
DEPLOYMENTS: Final[Source[Mapping[str, Any]]] = Source(
    "AIRISK_OAUTH", 10.0, 1.0, _fault_in, lambda configured: configured, log_setting
)


def _is_flat(configured: Mapping[Any, Any]) -> bool:
    """Tell whether options are where aliases belong, and no deployment is beside them."""
    deployments = [key for key, value in configured.items() if isinstance(value, Mapping) and key not in RULES]
    options = [key for key, value in configured.items() if key in REQUIRED and not isinstance(value, Mapping)]
    return bool(options) and not deployments


def _problems_of(alias: object, options: object) -> Iterator[Problem]:
    where = f"AIRISK_OAUTH[{alias!r}]"
    if not is_alias(alias):
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
