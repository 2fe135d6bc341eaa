"""Detects a person who acts as another user, as support staff may. Only the user themselves may connect."""

from typing import Any, Final, cast

from django.conf import settings
from django.contrib.auth import SESSION_KEY, get_user_model
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.http import HttpRequest
from django.utils.module_loading import import_string

#: The session keys by which django-hijack, django-loginas and django-su lead staff back to their own account, and the
#: attributes that other packages set on the user.
_WAYS_BACK: Final = ("hijack_history", "loginas_from_user", "exit_users_pk")
_MARKS: Final = ("is_hijacked", "is_impersonate")


def is_impersonated(request: HttpRequest) -> bool:
    """Tell whether the person at the browser acts as ``request.user`` without being that user.

    Most packages replace ``request.user`` and leave the session signed in as the person's own user. Some sign the
    session itself in as the other user: these are recognized by what they leave in the session, or by the site's own
    function that ``AIRISK_OAUTH_IMPERSONATED`` names.

    :raises ImproperlyConfigured: ``AIRISK_OAUTH_IMPERSONATED`` does not name a function.
    """
    session = getattr(request, "session", {})
    return (
        any(getattr(request.user, mark, False) for mark in _MARKS)
        or any(session.get(key) for key in _WAYS_BACK)
        or not _is_own(session.get(SESSION_KEY), request.user)
        or _site_says_so(request)
    )


def problem() -> str | None:
    """Return what is wrong with ``AIRISK_OAUTH_IMPERSONATED``, or ``None``."""
    path = getattr(settings, "AIRISK_OAUTH_IMPERSONATED", None)
    if path is None:
        return None
    try:
        recognize = import_string(path)
    except (ImportError, AttributeError, TypeError, ValueError):
        recognize = None
    return None if callable(recognize) else "AIRISK_OAUTH_IMPERSONATED does not name a function."


def _is_own(signed_in: str | None, user: Any) -> bool:
    """Compare keys as Django does: one key can be written in several ways, such as a UUID without its hyphens."""
    if signed_in is None:
        return True
    key = cast("Any", get_user_model()._meta.pk)
    try:
        return bool(key.to_python(signed_in) == key.to_python(user.pk))
    except ValidationError:
        return False


def _site_says_so(request: HttpRequest) -> bool:
    path = getattr(settings, "AIRISK_OAUTH_IMPERSONATED", None)
    if path is None:
        return False
    if wrong := problem():
        raise ImproperlyConfigured(wrong)
    return bool(import_string(path)(request))
