"""A token to and from its sealed text, bound to the row that owns it, with key rotation.

The sealed text is a Fernet message around ``[deployment, user id or null, userid, token]``: copied to another
row it does not open. Keys are ``AIRISK_OAUTH_ENCRYPTION_KEYS``, newest first; unset, they are derived from
``SECRET_KEY`` and ``SECRET_KEY_FALLBACKS``. Derived keys go on opening what they sealed after the list is set, until
they are dropped.
"""

import base64
import hashlib
import json
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.encoding import force_bytes

from .oauth.messages import Secret

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

#: Deployment, user id (``None``: the application) and userid.
Owner = tuple[str, str | None, str]

_DERIVED_FOR: Final = b"airisk_oauth.sealing.1"


class Unreadable(Exception):
    """The sealed text does not open: no key of ours sealed it, or it was sealed for another row."""


def seal(token: str, owner: Owner) -> tuple[str, str]:
    """Return the sealed text and the id of the key that sealed it."""
    keys = _listed() or _derived_keys()
    message = json.dumps([*owner, token]).encode()
    return _fernet(keys).encrypt(message).decode(), key_id(keys[0])


def unseal(sealed: str, owner: Owner, *, derived_open: Callable[[], bool] = lambda: True) -> Secret:
    """Return the token.

    :param derived_open: whether derived keys open as well where keys are listed; asked only if no listed one does.
    :raises Unreadable: it was not sealed for this owner with a key that is still there.
    """
    listed = _listed()
    try:
        message = _decrypted(sealed, listed) if listed else b""
        if not message and (not listed or derived_open()):
            message = _decrypted(sealed, _derived_keys())
        *sealed_for, token = json.loads(message)
    except (TypeError, ValueError):
        raise Unreadable("This stored token cannot be opened with the keys at hand.") from None
    if sealed_for != list(owner):
        raise Unreadable("This stored token was sealed for another owner.")
    return Secret(token)


def _decrypted(sealed: str, keys: tuple[str, ...]) -> bytes:
    """Return the message, or nothing where none of these keys sealed it."""
    from cryptography.fernet import InvalidToken

    try:
        return _fernet(keys).decrypt(sealed)
    except InvalidToken:
        return b""


def has_list() -> bool:
    """Tell whether the site lists keys of its own, apart from ``SECRET_KEY``."""
    return bool(getattr(settings, "AIRISK_OAUTH_ENCRYPTION_KEYS", None))


def key_ids(*, derived_open: bool = True) -> list[str]:
    """Return the ids of the keys that can open a token, the sealing one first. Ids tell nothing of a key."""
    listed = _listed()
    derived = _derived_keys() if derived_open or not listed else ()
    return [key_id(key) for key in (*listed, *derived)]


def key_id(key: str) -> str:
    return hashlib.sha256(_DERIVED_FOR + key.encode()).hexdigest()[:12]


def problem() -> str | None:
    """Return what is wrong with ``AIRISK_OAUTH_ENCRYPTION_KEYS``, or ``None``."""
    listed = getattr(settings, "AIRISK_OAUTH_ENCRYPTION_KEYS", None)
    if listed is None:
        return None
    if not isinstance(listed, list | tuple) or not listed:
        return "AIRISK_OAUTH_ENCRYPTION_KEYS must be a list of Fernet keys, newest first."
    if not all(_is_fernet_key(key) for key in listed):
        return "AIRISK_OAUTH_ENCRYPTION_KEYS holds something that is no Fernet key."
    return None


def _listed() -> tuple[str, ...]:
    if wrong := problem():
        raise ImproperlyConfigured(wrong)
    return tuple(Secret(key) for key in getattr(settings, "AIRISK_OAUTH_ENCRYPTION_KEYS", None) or ())


def _derived_keys() -> tuple[str, ...]:
    return tuple(_derived(secret) for secret in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS))


@lru_cache(maxsize=16)
def _derived(secret: str | bytes) -> Secret:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    key = HKDF(SHA256(), length=32, salt=None, info=_DERIVED_FOR).derive(force_bytes(secret))
    return Secret(base64.urlsafe_b64encode(key).decode())


@lru_cache(maxsize=16)
def _fernet(keys: tuple[str, ...]) -> "MultiFernet":
    from cryptography.fernet import Fernet, MultiFernet

    return MultiFernet([Fernet(key) for key in keys])


def _is_fernet_key(key: object) -> bool:
    try:
        return isinstance(key, str) and len(base64.b64decode(key, altchars=b"-_", validate=True)) == 32
    except ValueError:
        return False
