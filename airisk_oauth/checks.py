"""System checks: every wrong setting has a number and a hint."""

from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register  # noqa: A004 - Django's own name
from django.core.exceptions import ImproperlyConfigured

from . import conf, flow, sealing

_OURS = "airisk_oauth.middleware.AIRiskMiddleware"
_AUTHENTICATION = "django.contrib.auth.middleware.AuthenticationMiddleware"


@register("airisk_oauth")
def check_settings(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    return [Error(p.message, hint=p.hint, id=f"airisk_oauth.E{p.number:03}") for p in conf.problems()]


@register("airisk_oauth")
def check_site(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    return [*_site_errors(), *_redirect_uri_warnings(), *_middleware_warnings(), *_session_warnings()]


def _site_errors() -> Iterator[CheckMessage]:
    if not settings.USE_TZ:
        yield Error(
            "airisk_oauth needs USE_TZ = True.",
            hint="A token's end is a moment, and without time zones it could be hours off.",
            id="airisk_oauth.E006",
        )
    if wrong := sealing.problem():
        yield Error(
            wrong,
            hint='Make a key with: python -c "from cryptography.fernet import Fernet; '
            'print(Fernet.generate_key().decode())"',
            id="airisk_oauth.E007",
        )


def _redirect_uri_warnings() -> Iterator[CheckMessage]:
    for alias in _usable_aliases():
        callback = flow.page_url("callback", alias)
        path = urlsplit(conf.deployment(alias).redirect_uri).path
        with_alias = f"{callback}{alias}/" if alias == conf.DEFAULT_ALIAS else callback
        if callback is not None and path not in (callback, with_alias):
            yield Warning(
                f"AIRISK_OAUTH[{alias!r}]: the path of REDIRECT_URI is not this deployment's callback.",
                hint=f"The callback is {callback}. Ignore this where a proxy strips a prefix.",
                id="airisk_oauth.W001",
            )


def _middleware_warnings() -> Iterator[CheckMessage]:
    middleware = list(settings.MIDDLEWARE)
    if _OURS in middleware and _AUTHENTICATION not in middleware[: middleware.index(_OURS)]:
        yield Warning(
            "AIRiskMiddleware does not come after AuthenticationMiddleware.",
            hint=f"Put {_OURS} below {_AUTHENTICATION} in MIDDLEWARE.",
            id="airisk_oauth.W002",
        )


def _session_warnings() -> Iterator[CheckMessage]:
    if str(settings.SESSION_COOKIE_SAMESITE).lower() == "strict":
        yield Warning(
            "SESSION_COOKIE_SAMESITE is 'Strict': a browser that comes back from AIRisk is signed out.",
            hint="Set it to 'Lax', Django's default, for the callback of airisk_oauth to know who comes back.",
            id="airisk_oauth.W003",
        )


def _usable_aliases() -> Iterator[str]:
    try:
        for alias in conf.aliases():
            conf.deployment(alias)
            yield alias
    except ImproperlyConfigured:
        return
