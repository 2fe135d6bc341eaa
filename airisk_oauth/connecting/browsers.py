"""What binds a flow to its browser: a random value in a cookie that no other part of a site writes.

A session is shared by all of a browser's requests, and one that saves it late writes back what it had read early.
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
#: Longer than a flow may take, and a second hit of its callback is recognized.
LIFETIME: Final = timedelta(hours=1)


def value_of(request: HttpRequest) -> Secret | None:
    """Return what this browser is recognized by, or ``None`` for one that has not been given it yet."""
    value = request.COOKIES.get(COOKIE, "")
    return Secret(value) if re.fullmatch(r"[A-Za-z0-9_-]{43,64}", value) else None


def value_for(request: HttpRequest) -> Secret:
    """Return what this browser is recognized by, or what it is to be given.

    Made from the session cookie, as far as there is one: the two requests of a double click get the same value.
    """
    if (value := value_of(request)) is not None:
        return value
    session = request.COOKIES.get(settings.SESSION_COOKIE_NAME)
    made = salted_hmac(COOKIE, session, algorithm="sha256").hexdigest() if session else secrets.token_urlsafe(32)
    return Secret(made)


def binding(request: HttpRequest, value: Secret) -> Secret:
    """Return what a flow is bound to: its browser, and the session there, which ends when somebody else signs in.

    Only the session's key is looked at, which no request that saves a session changes, and that not where the key is
    the session itself, in a cookie.
    """
    session = getattr(request, "session", None)
    key = session.session_key if session is not None and SESSION_KEY in session else None
    if key is None or not re.fullmatch(r"[a-z0-9]{32}", key):
        return value
    return Secret(f"{value}.{key}")


def keep(response: HttpResponseBase, value: Secret) -> None:
    """Give the value to the browser, or let it keep the one it has for another hour."""
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
