"""The setting ``AIRISK_OAUTH``, read on every use and turned into frozen :class:`Deployment` objects.

One table at the end holds the rule for each option. Whatever breaks a rule is a :class:`Problem`: a system check
reports all of them, and using a deployment that has one raises ``ImproperlyConfigured``.

Every process imports this module when it starts, so what only a deployment in use needs is imported then.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from . import addresses

if TYPE_CHECKING:
    from django.http import HttpRequest

    from .oauth.deployment import Deployment

DEFAULT_ALIAS: Final = "default"
MAX_ALIAS: Final = 64
MAX_USERID: Final = 255
#: In seconds. A lease lasts longer than a flow may take, so this also limits how long a crashed worker blocks a token.
MAX_TIMEOUT: Final = 300

_HOST: Final = r"[a-z0-9]([-a-z0-9._]*[a-z0-9])?\.?|[0-9a-f:.]+"
# The parameters that we set ourselves, which a site's extra ones must not replace.
_AUTHORIZE_PARAMETERS: Final = frozenset({"client_id", "redirect_uri", "state", "userid"})
_TOKEN_PARAMETERS: Final = frozenset({"code", "client_id", "client_secret", "redirect_uri", "userid"})


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
        yield Problem(1, str(error), "See the quickstart in the README of django-airisk-oauth.")
        return
    for alias, options in configured.items():
        yield from _problems_of(alias, options)


def _configured() -> Mapping[str, Any]:
    configured = getattr(settings, "AIRISK_OAUTH", None)
    if not isinstance(configured, Mapping) or not configured:
        raise ImproperlyConfigured("AIRISK_OAUTH must be a dictionary that maps aliases to deployments.")
    return configured


def _problems_of(alias: object, options: object) -> Iterator[Problem]:
    where = f"AIRISK_OAUTH[{alias!r}]"
    if not isinstance(alias, str) or not re.fullmatch(rf"[-a-zA-Z0-9_]{{1,{MAX_ALIAS}}}", alias):
        hint = f"Use only letters, digits, - and _, at most {MAX_ALIAS} characters."
        yield Problem(2, f"{where}: this alias cannot be part of a URL.", hint)
        return
    if not isinstance(options, Mapping):
        yield Problem(1, f"{where} must be a dictionary.", f"Set at least {', '.join(_REQUIRED)} in it.")
        return
    for key in options:
        if key not in _RULES:
            yield Problem(3, f"{where} has an unknown key {key!r}.", f"Remove it, or use one of {', '.join(_RULES)}.")
    for key, (is_right, expected) in _RULES.items():
        if key not in options:
            if key in _REQUIRED:
                yield Problem(4, f"{where} has no {key}.", f"Set it to {expected}.")
        elif not is_right(options[key]):
            yield Problem(5, f"{where} has an invalid {key}.", f"Set it to {expected}.")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value) and value.isprintable() and value == value.strip()


def _is_url(value: object) -> bool:
    """Accept https:// for any host, and http:// for this machine or under DEBUG; with an origin and a path only."""
    from .oauth.deployment import origin_of

    if not isinstance(value, str) or not value.isascii() or not _is_text(value) or set(value) & set("?#@\\ "):
        return False
    origin = origin_of(value)
    if origin is None or not re.fullmatch(_HOST, origin[1]):
        return False
    return origin[0] == "https" or _is_loopback(origin[1]) or bool(settings.DEBUG)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _is_path(value: object) -> bool:
    return _is_text(value) and str(value).startswith("/") and urlsplit(str(value)).path == value


def _is_dotted_path(value: object) -> bool:
    try:
        return callable(import_string(cast("str", value)))
    except (ImportError, AttributeError, TypeError, ValueError):
        return False


def _is_whole_number(largest: int) -> Callable[[object], bool]:
    return lambda value: type(value) is int and 0 <= value <= largest


def _are_timeouts(value: object) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and all(type(seconds) in (int, float) and 0 < seconds <= MAX_TIMEOUT for seconds in value)
    )


def _are_parameters(reserved: frozenset[str]) -> Callable[[object], bool]:
    def check(value: object) -> bool:
        return isinstance(value, Mapping) and all(
            isinstance(key, str) and isinstance(text, str) and key not in reserved for key, text in value.items()
        )

    return check


_EXTRAS = "a dictionary of strings that does not set any of the protocol's own parameters"
_URL = "an https:// URL without a user name, query or fragment (http:// is for loopback addresses, and for DEBUG)"
_TIMEOUTS = f"a tuple of two numbers, the seconds to connect and to read, each at most {MAX_TIMEOUT}"
_REQUIRED = ("BASE_URL", "CLIENT_ID", "CLIENT_SECRET", "REDIRECT_URI")
_RULES: dict[str, tuple[Callable[[object], bool], str]] = {
    "BASE_URL": (_is_url, _URL),
    "CLIENT_ID": (_is_text, "the client_id of the APIUser on AIRisk"),
    "CLIENT_SECRET": (_is_text, "the client_secret of the APIUser on AIRisk"),
    "REDIRECT_URI": (_is_url, _URL + ", exactly as registered with AIRisk"),
    "AUTHORIZE_PATH": (_is_path, "a path that starts with /"),
    "TOKEN_PATH": (_is_path, "a path that starts with /"),
    "USERID": (_is_dotted_path, "the dotted path of a function (user, deployment alias) -> str | None"),
    "SILENT_RENEWAL": (lambda value: isinstance(value, bool), "True or False"),
    "CODE_FROM": (lambda value: value in ("browser", "server"), '"browser" or "server"'),
    "RENEW_BEFORE": (_is_whole_number(86_400), "a whole number of seconds, at most 86400 (a day)"),
    "RENEW_UNUSED_FOR": (_is_whole_number(36_500), "a whole number of days, at most 36500"),
    "TIMEOUT": (_are_timeouts, _TIMEOUTS),
    "API_TIMEOUT": (_are_timeouts, _TIMEOUTS),
    "EXTRA_AUTHORIZE_PARAMS": (_are_parameters(_AUTHORIZE_PARAMETERS), _EXTRAS),
    "EXTRA_TOKEN_PARAMS": (_are_parameters(_TOKEN_PARAMETERS), _EXTRAS),
}
