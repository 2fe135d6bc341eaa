"""Binds a flow to the browser that started it, by a random value in a cookie that nothing else on a site writes.

The session would not do: all of a browser's requests share it, and one that saves it late overwrites what others saved.
"""

import re
import secrets
from datetime import timedelta
from typing import Final, Literal

from django.conf import settings
from django.contrib.auth import SESSION_KEY
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.crypto import salted_hmac

from ..oauth.messages import Secret

COOKIE: Final = "airisk_oauth_browser"
#: Longer than a flow may take, and long enough to recognize a repeated callback.
LIFETIME: Final = timedelta(hours=1)


def cookie_value(request: HttpRequest) -> Secret | None:
    """Return the value that this browser has in the cookie, or ``None``."""
    value = request.COOKIES.get(COOKIE, "")
    return Secret(value) if re.fullmatch(r"[A-Za-z0-9_-]{43,64}", value) else None


def cookie_value_or_new(request: HttpRequest) -> Secret:
    """Return the value that this browser has in the cookie, or a new one for :func:`set_cookie`.

    A new value is derived from the session cookie if there is one, so that both requests of a double click get the
    same value.
    """
    if (value := cookie_value(request)) is not None:
        return value
    session = request.COOKIES.get(settings.SESSION_COOKIE_NAME)
    new = salted_hmac(COOKIE, session, algorithm="sha256").hexdigest() if session else secrets.token_urlsafe(32)
    return Secret(new)


def binding(request: HttpRequest, value: Secret) -> Secret:
    """Return what a flow is bound to: the browser, and the session in it, which ends when another user signs in.

    Of the session only the key is used, because no request that saves the session changes it. A backend that keeps
    the session itself in the cookie has no such key; then the flow is bound to the browser alone.
    """
    session = getattr(request, "session", None)
    key = session.session_key if session is not None and SESSION_KEY in session else None
    if key is None or not re.fullmatch(r"[a-z0-9]{32}", key):
        return value
    return Secret(f"{value}.{key}")


def set_cookie(response: HttpResponseBase, value: Secret) -> None:
    """Store the value in the browser for an hour from now."""
    same_site: Literal["None", "Lax"] = "None" if str(settings.SESSION_COOKIE_SAMESITE).lower() == "none" else "Lax"
    response.set_cookie(
        COOKIE,
        value,
        max_age=LIFETIME,
        domain=settings.SESSION_COOKIE_DOMAIN,
        path=settings.SESSION_COOKIE_PATH,
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite=same_site,
    )
