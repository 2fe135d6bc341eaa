"""Tokens are sealed: encrypted together with their owner, so that a token copied to another row cannot be opened there.

The keys are ``AIRISK_OAUTH_ENCRYPTION_KEYS``, newest first. Without that setting they are derived from ``SECRET_KEY``
and ``SECRET_KEY_FALLBACKS``. Once a site has keys of its own, derived keys still open what they sealed, until they are
dropped. The setting may name a function that returns the keys; see :mod:`airisk_oauth.providers.source`.
"""

import base64
import hashlib
import json
import math
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.encoding import force_bytes

from .events import log_setting
from .providers.source import Source
from .rules import fault_in_text

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

    from .oauth.messages import Secret

#: Deployment, user id (``None``: the application) and userid.
Owner = tuple[str, str | None, str]

#: Part of every derived key: tokens could not be opened any more if it changed.
_DERIVED_FOR: Final = b"airisk_oauth.sealing.1"


class Unreadable(Exception):
    """The sealed text cannot be opened: none of our keys sealed it, or it was sealed for another row."""


class Format:
    """A way to encrypt tokens.

    :ivar name: a part of every id, so that one key has another id in another format.
    :ivar encrypt: takes a key and a message, and returns text for a database.
    :ivar decrypt: takes keys and such a text, and returns the message, or nothing if none of the keys encrypted it.
    """

    def __init__(
        self, name: bytes, encrypt: Callable[[str, bytes], str], decrypt: Callable[[tuple[str, ...], str], bytes]
    ) -> None:
        self.name, self.encrypt, self.decrypt = name, encrypt, decrypt


def _encrypt(key: str, message: bytes) -> str:
    return _fernet((key,)).encrypt(message).decode()


def _decrypt(keys: tuple[str, ...], text: str) -> bytes:
    from cryptography.fernet import InvalidToken

    if not set(text).isdisjoint("+/"):
        # No sealed text contains them, and Python 3.15 warns about them.
        return b""
    try:
        return _fernet(keys).decrypt(text)
    except (InvalidToken, ValueError):
        return b""


#: Newest first: the first one encrypts, all of them decrypt. During a rolling deployment two versions read the same
#: rows: add a format at the end, and move it to the front a version later.
FORMATS: tuple[Format, ...] = (Format(b"airisk_oauth.sealing.1", _encrypt, _decrypt),)


def seal(token: str, owner: Owner) -> tuple[str, str]:
    """Return the sealed text, and the id of the format and the key that sealed it."""
    key = (_own_keys() or _derived_keys())[0]
    message = json.dumps([*owner, token]).encode()
    return FORMATS[0].encrypt(key, message), key_id(FORMATS[0], key)


def unseal(
    sealed: str, owner: Owner, key_id: str = "", derived_keys_accepted: Callable[[], bool] = lambda: True
) -> "Secret":
    """Return the token.

    :param key_id: the id of the key that sealed it, if that is known. A function that returns the keys is called again
        if it has not returned that key: another process may have got it already.
    :param derived_keys_accepted: whether derived keys may open it, too, although the site has keys of its own; called
        only if none of those opens it.
    :raises Unreadable: it was not sealed for this owner with one of our keys.
    :raises SettingUnavailable: the function that returns the keys fails, so that one of them may be missing.
    """
    own_keys = _own_keys(key_id)
    try:
        message = _opened(sealed, own_keys) if own_keys else b""
        if not message and (not own_keys or derived_keys_accepted()):
            message = _opened(sealed, _derived_keys())
        *sealed_for, token = json.loads(message)
    except (TypeError, ValueError):
        raise Unreadable("This stored token cannot be opened with the keys at hand.") from None
    if sealed_for != list(owner):
        raise Unreadable("This stored token was sealed for another owner.")
    from .oauth.messages import Secret

    return Secret(token)


def _opened(sealed: str, keys: tuple[str, ...]) -> bytes:
    """Return the message, or nothing if none of these keys sealed it, in any format."""
    return next(filter(None, (each.decrypt(keys, sealed) for each in FORMATS)), b"")


def has_own_keys() -> bool:
    """Tell whether the site has keys of its own, apart from ``SECRET_KEY``."""
    return bool(getattr(settings, "AIRISK_OAUTH_ENCRYPTION_KEYS", None))


def key_ids(*, derived_keys_accepted: bool = True) -> list[str]:
    """Return the ids that a token may have which can be opened; first the id that :func:`seal` returns now."""
    own_keys = _own_keys()
    derived = _derived_keys() if derived_keys_accepted or not own_keys else ()
    return _ids((*own_keys, *derived))


def _ids(keys: tuple[str, ...]) -> list[str]:
    return [key_id(each, key) for each in FORMATS for key in keys]


def key_id(sealed_in: Format, key: str) -> str:
    """Return 12 characters that name a format and a key, and reveal nothing about the key."""
    return hashlib.sha256(sealed_in.name + key.encode()).hexdigest()[:12]


def problem() -> str | None:
    """Return what is wrong with ``AIRISK_OAUTH_ENCRYPTION_KEYS``, or ``None``; a function in it is not called."""
    keys = getattr(settings, "AIRISK_OAUTH_ENCRYPTION_KEYS", None)
    return None if keys is None or KEYS.path is not None else _fault_in(keys)


def _fault_in(keys: object) -> str | None:
    if not isinstance(keys, list | tuple) or not keys:
        found = type(keys).__name__ if keys else "empty"
        return f"AIRISK_OAUTH_ENCRYPTION_KEYS must be a list of Fernet keys, newest first. It is {found}."
    for number, key in enumerate(keys):
        if not _is_fernet_key(key):
            fault = fault_in_text(key) or "it is not 32 bytes in Base64"
            return f"AIRISK_OAUTH_ENCRYPTION_KEYS[{number}] is not a Fernet key: {fault}."
    return None


def _own_keys(wanted: str = "") -> tuple[str, ...]:
    """Return the keys in the setting, newest first.

    :param wanted: the id of a key that is needed.
    """
    if KEYS.path is None:
        if wrong := problem():
            raise ImproperlyConfigured(wrong)
        return _secrets(getattr(settings, "AIRISK_OAUTH_ENCRYPTION_KEYS", None) or ())
    if not wanted:
        return KEYS.value()
    return KEYS.value_with(wanted, lambda keys: wanted in _ids((*keys, *_derived_keys())))


def _secrets(keys: Iterable[str]) -> tuple[str, ...]:
    from .oauth.messages import Secret

    return tuple(Secret(key) for key in keys)


#: A function is called at most once a minute, and besides that once for each key that it did not return.
KEYS: Final[Source[tuple[str, ...]]] = Source(
    "AIRISK_OAUTH_ENCRYPTION_KEYS", 60.0, math.inf, _fault_in, _secrets, log_setting
)


def _derived_keys() -> tuple[str, ...]:
    return tuple(_derived(secret) for secret in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS))


@lru_cache(maxsize=16)
def _derived(secret: str | bytes) -> "Secret":
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    key = HKDF(SHA256(), length=32, salt=None, info=_DERIVED_FOR).derive(force_bytes(secret))
    from .oauth.messages import Secret

    return Secret(base64.urlsafe_b64encode(key).decode())


@lru_cache(maxsize=16)
def _fernet(keys: tuple[str, ...]) -> "MultiFernet":
    from cryptography.fernet import Fernet, MultiFernet

    return MultiFernet([Fernet(_url_safe(key)) for key in keys])


def _url_safe(key: str) -> str:
    """Return a key in the URL-safe alphabet: Python 3.15 warns about the other one."""
    return key.replace("+", "-").replace("/", "_")


def _is_fernet_key(key: object) -> bool:
    try:
        return isinstance(key, str) and len(base64.b64decode(_url_safe(key), altchars=b"-_", validate=True)) == 32
    except ValueError:
        return False
