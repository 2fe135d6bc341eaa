"""System checks: each has an id and a hint that says what to do."""

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004 - Django's own name
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, connections, router

from . import conf, sealing
from .connecting import impersonation
from .connecting.checks import MIDDLEWARE, check_login, check_pages, check_policies
from .models import AIRiskToken
from .notices.checks import check_notices, check_recipients
from .providers.checks import check_deployments, check_paths, check_values
from .rules import is_quoted

#: With these, connections that write to SQLite wait for each other, and readers wait for nobody.
SQLITE_OPTIONS = {"transaction_mode": "IMMEDIATE", "timeout": 20, "init_command": "PRAGMA journal_mode=WAL"}
_AUTHENTICATION_MIDDLEWARE = "django.contrib.auth.middleware.AuthenticationMiddleware"


def check_settings() -> list[CheckMessage]:
    """Return the settings with which nothing here works. Commands look for these, too, so no URLs are imported."""
    of_deployments = check_deployments() if conf.DEPLOYMENTS.path is None else ()
    return [*check_paths(), *of_deployments, *_site_errors(), *check_notices()]


def check_site() -> list[CheckMessage]:
    return [
        *(_deployment_warnings() if conf.DEPLOYMENTS.path is None else ()),
        *_middleware_warnings(),
        *_session_warnings(),
        *check_recipients(),
        *_sqlite_warnings(atomic_requests=True),
    ]


def check_deployment() -> list[CheckMessage]:
    """Return warnings about what makes a public site less secure; part of ``check --deploy``."""
    return [
        *check_values(),
        *(() if conf.DEPLOYMENTS.path is None else _deployment_warnings()),
        *_key_warnings(),
        *_cookie_warnings(),
        *_transport_warnings(),
        *check_policies(_usable_aliases()),
        *_code_warnings(),
        *_sqlite_warnings(atomic_requests=False),
        *check_pages(),
    ]


def _deployment_warnings() -> Iterator[CheckMessage]:
    yield from _redirect_uri_warnings()
    yield from _quote_warnings()
    yield from check_login(_usable_aliases())


def _site_errors() -> Iterator[CheckMessage]:
    if not settings.USE_TZ:
        yield Error(
            "airisk_oauth needs USE_TZ = True.",
            hint="Set it to True: without time zones, the expiry of a token could be hours off.",
            id="airisk_oauth.E006",
        )
    if wrong := sealing.problem():
        yield Error(
            wrong,
            hint='Make each key with: python -c "from cryptography.fernet import Fernet; '
            'print(Fernet.generate_key().decode())"',
            id="airisk_oauth.E007",
        )
    if wrong := impersonation.problem():
        yield Error(
            wrong,
            hint="Set it to the dotted path of a function (request) -> bool, or remove it.",
            id="airisk_oauth.E008",
        )


def _redirect_uri_warnings() -> Iterator[CheckMessage]:
    for alias in _usable_aliases():
        callback = conf.page_url("callback", alias)
        path = urlsplit(conf.deployment(alias).redirect_uri).path
        with_alias = f"{callback}{alias}/" if alias == conf.DEFAULT_ALIAS else callback
        if callback is not None and path not in (callback, with_alias):
            yield Warning(
                f"AIRISK_OAUTH[{alias!r}]: the path of REDIRECT_URI is not that of this deployment's callback.",
                hint=f"Change it to {callback}, or ignore this if a proxy strips a prefix from the path.",
                id="airisk_oauth.W001",
            )


def _quote_warnings() -> Iterator[CheckMessage]:
    for alias in _usable_aliases():
        deployment = conf.deployment(alias)
        for key in ("client_id", "client_secret"):
            if is_quoted(getattr(deployment, key)):
                yield Warning(
                    f"AIRISK_OAUTH[{alias!r}]: there are quotation marks around {key.upper()}.",
                    hint="Remove them, or ignore this if they belong to it. Not every program that reads a file of "
                    "variables removes them.",
                    id="airisk_oauth.W014",
                )


def _middleware_warnings() -> Iterator[CheckMessage]:
    middleware = list(settings.MIDDLEWARE)
    if MIDDLEWARE in middleware and _AUTHENTICATION_MIDDLEWARE not in middleware[: middleware.index(MIDDLEWARE)]:
        yield Warning(
            "AIRiskMiddleware is not below AuthenticationMiddleware.",
            hint=f"Put {MIDDLEWARE} below {_AUTHENTICATION_MIDDLEWARE} in MIDDLEWARE.",
            id="airisk_oauth.W002",
        )


def _session_warnings() -> Iterator[CheckMessage]:
    if str(settings.SESSION_COOKIE_SAMESITE).lower() == "strict":
        yield Warning(
            "SESSION_COOKIE_SAMESITE is 'Strict': a browser that comes back from AIRisk appears to be signed out.",
            hint="Set it to 'Lax', Django's default, so that the callback knows whose browser it is.",
            id="airisk_oauth.W003",
        )


def _sqlite_warnings(*, atomic_requests: bool) -> Iterator[CheckMessage]:
    """Warn about options with which SQLite does not wait for a lock.

    With ``ATOMIC_REQUESTS`` requests fail from the start, so every check warns; without it ``check --deploy`` does.
    """
    for alias in _databases():
        database: Any = connections[alias]
        options = database.settings_dict
        if database.vendor != "sqlite" or database.is_in_memory_db():
            continue
        if options["ATOMIC_REQUESTS"] is atomic_requests and not _waits_for_locks(options["OPTIONS"]):
            yield Warning(
                "SQLite is configured so that requests that write at the same time fail with 'database is locked'.",
                hint=f"Set DATABASES[{alias!r}]['OPTIONS'] to {SQLITE_OPTIONS}, or use another database.",
                id="airisk_oauth.W009",
            )


def _databases() -> list[str]:
    """Return the databases that may have our tables; outside a request, a router may not know where we write."""
    if not settings.DATABASE_ROUTERS:
        return [DEFAULT_DB_ALIAS]
    return [alias for alias in connections if router.allow_migrate_model(alias, AIRiskToken)]


def _waits_for_locks(options: Mapping[str, Any]) -> bool:
    return (
        str(options.get("transaction_mode")).upper() in ("IMMEDIATE", "EXCLUSIVE")
        and options.get("timeout", 0) >= 10
        and re.search(r"(?i)journal_mode\s*=\s*['\"]?wal", options.get("init_command") or "") is not None
    )


def _key_warnings() -> Iterator[CheckMessage]:
    if not sealing.has_own_keys():
        yield Warning(
            "Stored tokens are encrypted with keys derived from SECRET_KEY: anyone who knows it can read the tokens.",
            hint="Set AIRISK_OAUTH_ENCRYPTION_KEYS, then run reseal_airisk_tokens.",
            id="airisk_oauth.W004",
        )


def _cookie_warnings() -> Iterator[CheckMessage]:
    if not settings.SESSION_COOKIE_SECURE:
        yield Warning(
            "SESSION_COOKIE_SECURE is off: the cookie that ties a flow to its browser can be read in transit.",
            hint="Set it to True.",
            id="airisk_oauth.W005",
        )


def _transport_warnings() -> Iterator[CheckMessage]:
    if not settings.SECURE_SSL_REDIRECT:
        yield Warning(
            "SECURE_SSL_REDIRECT is off: AIRisk's answer may reach the callback over plain HTTP.",
            hint="Set it to True, or ignore this if a proxy redirects to HTTPS.",
            id="airisk_oauth.W006",
        )
    for alias in _usable_aliases():
        deployment = conf.deployment(alias)
        for key in ("base_url", "redirect_uri"):
            if getattr(deployment, key).startswith("http:"):
                yield Warning(
                    f"AIRISK_OAUTH[{alias!r}]: {key.upper()} is plain HTTP: codes and tokens can be read in transit.",
                    hint="Use an https:// URL.",
                    id="airisk_oauth.W007",
                )


def _code_warnings() -> Iterator[CheckMessage]:
    for alias in _usable_aliases():
        if not conf.is_set(alias, "CODE_FROM"):
            yield Warning(
                f"AIRISK_OAUTH[{alias!r}]: CODE_FROM is not set. If AIRisk's codes carry their user, users can connect "
                "as somebody else.",
                hint="Run check_airisk --user NAME to find out whether CODE_FROM has to be 'server', then set it to "
                "that or to 'browser'.",
                id="airisk_oauth.W010",
            )


def _usable_aliases() -> Iterator[str]:
    try:
        for alias in conf.aliases():
            yield from (each.alias for each in conf.usable([alias]))
    except ImproperlyConfigured:
        return
