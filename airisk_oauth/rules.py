"""The rule for each option of a deployment in ``AIRISK_OAUTH``.

A rule names what is wrong with a value, and never repeats the value, which may be a secret.
"""

import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Final, TypeAlias, cast
from urllib.parse import urlsplit

from django.conf import settings
from django.utils.module_loading import import_string

#: Takes a value, and returns what is wrong with it as a clause; ``None`` if it is right, ``""`` if there is no more to
#: say than what would be right.
Rule: TypeAlias = Callable[[object], str | None]

#: In seconds. A lease lasts longer than a flow may take, so this also limits how long a crashed worker blocks a token.
MAX_TIMEOUT: Final = 300
_HOST: Final = r"[a-z0-9]([-a-z0-9._]*[a-z0-9])?\.?|[0-9a-f:.]+"
# The parameters that we set ourselves, which a site's extra ones must not replace.
_AUTHORIZE_PARAMETERS: Final = frozenset({"client_id", "redirect_uri", "state", "userid"})
_TOKEN_PARAMETERS: Final = frozenset({"code", "client_id", "client_secret", "redirect_uri", "userid"})
_NOT_IN_URL: Final = {"@": "a user name", "?": "a query", "#": "a fragment", "\\": "a backslash", " ": "a space"}


def fault_in_text(value: object) -> str | None:
    """Accept printable text without space around it."""
    if not isinstance(value, str):
        return "it is None" if value is None else f"it is of type {type(value).__name__}, not str"
    if not value.strip():
        return "it is empty"
    if value.strip() == value.rstrip("\r\n") != value:
        return "it ends with a line break, as the text in a file does"
    if value != value.strip():
        return "there is space around it"
    return None if value.isprintable() else "it contains a line break or a control character"


def _fault_in_url(value: object) -> str | None:
    """Accept https:// for any host, and http:// for this machine or under DEBUG; with an origin and a path only."""
    if (fault := fault_in_text(value)) is not None:
        return fault
    url = str(value)
    if is_quoted(url):
        return "it is in quotation marks"
    if not re.match("https?://", url, re.IGNORECASE):
        return "it does not begin with https://"
    if not url.isascii():
        return "it contains characters other than ASCII"
    for character, name in _NOT_IN_URL.items():
        if character in url:
            return f"it contains {name}"
    host = _host_in(url)
    if not re.fullmatch(_HOST, host):
        return "its host or its port is not valid"
    if url.lower().startswith("https:") or _is_loopback(host) or settings.DEBUG:
        return None
    return "it is plain http://, and DEBUG is off"


def _host_in(url: str) -> str:
    """Return the host in lower case; empty if there is none, or if the port is not valid."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return ""
    return parts.hostname or ""


def is_quoted(text: str) -> bool:
    """Tell whether there are quotation marks around a text, which some ways to set a variable do not remove."""
    return len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _fault_in_path(value: object) -> str | None:
    if (fault := fault_in_text(value)) is not None:
        return fault
    if not str(value).startswith("/"):
        return "it does not begin with /"
    return None if urlsplit(str(value)).path == value else "it is not only a path"


def _fault_unless(is_right: Callable[[object], bool]) -> Rule:
    return lambda value: None if is_right(value) else ""


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
REQUIRED = ("BASE_URL", "CLIENT_ID", "CLIENT_SECRET", "REDIRECT_URI")
RULES: dict[str, tuple[Rule, str]] = {
    "BASE_URL": (_fault_in_url, _URL),
    "CLIENT_ID": (fault_in_text, "the client_id of the APIUser on AIRisk"),
    "CLIENT_SECRET": (fault_in_text, "the client_secret of the APIUser on AIRisk"),
    "REDIRECT_URI": (_fault_in_url, _URL + ", exactly as registered with AIRisk"),
    "AUTHORIZE_PATH": (_fault_in_path, "a path that starts with /"),
    "TOKEN_PATH": (_fault_in_path, "a path that starts with /"),
    "USERID": (_fault_unless(_is_dotted_path), "the dotted path of a function (user, deployment alias) -> str | None"),
    "SILENT_RENEWAL": (_fault_unless(lambda value: isinstance(value, bool)), "True or False"),
    "CODE_FROM": (_fault_unless(lambda value: value in ("browser", "server")), '"browser" or "server"'),
    "RENEW_BEFORE": (_fault_unless(_is_whole_number(86_400)), "a whole number of seconds, at most 86400 (a day)"),
    "RENEW_UNUSED_FOR": (_fault_unless(_is_whole_number(36_500)), "a whole number of days, at most 36500"),
    "TIMEOUT": (_fault_unless(_are_timeouts), _TIMEOUTS),
    "API_TIMEOUT": (_fault_unless(_are_timeouts), _TIMEOUTS),
    "EXTRA_AUTHORIZE_PARAMS": (_fault_unless(_are_parameters(_AUTHORIZE_PARAMETERS)), _EXTRAS),
    "EXTRA_TOKEN_PARAMS": (_fault_unless(_are_parameters(_TOKEN_PARAMETERS)), _EXTRAS),
}
