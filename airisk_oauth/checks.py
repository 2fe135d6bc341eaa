"""System checks: every wrong setting has a number and a hint."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urljoin, urlsplit

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register  # noqa: A004 - Django's own name
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, connections, router

from . import conf, sealing
from .connecting import impersonation
from .models import AIRiskToken
from .notices import options
from .oauth.deployment import origin_of

#: What makes those who write to SQLite wait for each other, readers excepted.
SQLITE_OPTIONS = {"transaction_mode": "IMMEDIATE", "timeout": 20, "init_command": "PRAGMA journal_mode=WAL"}
_OURS = "airisk_oauth.middleware.AIRiskMiddleware"
_AUTHENTICATION = "django.contrib.auth.middleware.AuthenticationMiddleware"


@register("airisk_oauth")
def check_settings(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    return [Error(p.message, hint=p.hint, id=f"airisk_oauth.E{p.number:03}") for p in conf.problems()]


@register("airisk_oauth")
def check_site(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    return [
        *_site_errors(),
        *_redirect_uri_warnings(),
        *_middleware_warnings(),
        *_session_warnings(),
        *_notice_warnings(),
        *_sqlite_warnings(atomic_requests=True),
    ]


@register(Tags.security, deploy=True)
def check_deployment(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Warn of what weakens the flow on a site that is open to the world; part of ``check --deploy``."""
    return [
        *_key_warnings(),
        *_cookie_warnings(),
        *_transport_warnings(),
        *_policy_warnings(),
        *_code_warnings(),
        *_sqlite_warnings(atomic_requests=False),
        *_page_warnings(),
    ]


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
    if wrong := impersonation.problem():
        yield Error(
            wrong,
            hint="Set it to the dotted path of a function (request) -> bool, or leave it out.",
            id="airisk_oauth.E008",
        )
    for wrong, hint in options.problems():
        yield Error(wrong, hint=hint, id="airisk_oauth.E009")


def _redirect_uri_warnings() -> Iterator[CheckMessage]:
    for alias in _usable_aliases():
        callback = conf.page_url("callback", alias)
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


def _notice_warnings() -> Iterator[CheckMessage]:
    if not list(options.problems()) and options.options().managers and not settings.MANAGERS:
        yield Warning(
            "AIRISK_OAUTH_NOTIFY asks for e-mails to the managers, and there are none.",
            hint="Set MANAGERS, or 'managers' to False.",
            id="airisk_oauth.W012",
        )


def _sqlite_warnings(*, atomic_requests: bool) -> Iterator[CheckMessage]:
    """Warn of SQLite's own ways with locks: of what fails under ATOMIC_REQUESTS at once, of the rest on deployment."""
    for alias in _databases():
        database: Any = connections[alias]
        options = database.settings_dict
        if database.vendor != "sqlite" or database.is_in_memory_db():
            continue
        if options["ATOMIC_REQUESTS"] is atomic_requests and not _waits_for_its_turn(options["OPTIONS"]):
            yield Warning(
                "SQLite is set up so that requests which write at the same moment fail with 'database is locked'.",
                hint=f"Set DATABASES[{alias!r}]['OPTIONS'] to {SQLITE_OPTIONS}, or use another database.",
                id="airisk_oauth.W009",
            )


def _databases() -> list[str]:
    """Return which databases may have our tables; where we write now, a router may know within a request only."""
    if not settings.DATABASE_ROUTERS:
        return [DEFAULT_DB_ALIAS]
    return [alias for alias in connections if router.allow_migrate_model(alias, AIRiskToken)]


def _waits_for_its_turn(options: Mapping[str, Any]) -> bool:
    return (
        str(options.get("transaction_mode")).upper() in ("IMMEDIATE", "EXCLUSIVE")
        and options.get("timeout", 0) >= 10
        and re.search(r"(?i)journal_mode\s*=\s*['\"]?wal", options.get("init_command") or "") is not None
    )


def _key_warnings() -> Iterator[CheckMessage]:
    if not sealing.has_own_keys():
        yield Warning(
            "Stored tokens are sealed with keys derived from SECRET_KEY: who reads that can read the tokens.",
            hint="Set AIRISK_OAUTH_ENCRYPTION_KEYS, and run reseal_airisk_tokens.",
            id="airisk_oauth.W004",
        )


def _cookie_warnings() -> Iterator[CheckMessage]:
    if not settings.SESSION_COOKIE_SECURE:
        yield Warning(
            "SESSION_COOKIE_SECURE is off: the cookie that binds a flow to its browser may be read on the way.",
            hint="Set it to True.",
            id="airisk_oauth.W005",
        )


def _transport_warnings() -> Iterator[CheckMessage]:
    if not settings.SECURE_SSL_REDIRECT:
        yield Warning(
            "SECURE_SSL_REDIRECT is off: AIRisk's answer may reach the callback by plain HTTP.",
            hint="Set it to True. Ignore this where a proxy redirects.",
            id="airisk_oauth.W006",
        )
    for alias in _usable_aliases():
        deployment = conf.deployment(alias)
        for key in ("base_url", "redirect_uri"):
            if getattr(deployment, key).startswith("http:"):
                yield Warning(
                    f"AIRISK_OAUTH[{alias!r}]: {key.upper()} is plain HTTP: codes and tokens may be read on the way.",
                    hint="Use an https:// URL.",
                    id="airisk_oauth.W007",
                )


def _policy_warnings() -> Iterator[CheckMessage]:
    """Chromium holds redirects of a form against ``form-action`` too, and Connect is a form that leads to AIRisk."""
    policies = list(_form_actions())
    for alias in _usable_aliases():
        deployment = conf.deployment(alias)
        if not all(any(_allows(source, deployment.origin) for source in allowed) for allowed in policies):
            yield Warning(
                f"The policy's form-action leaves out AIRISK_OAUTH[{alias!r}]: Connect leads nowhere.",
                hint=f"Add {urljoin(deployment.base_url, '/').rstrip('/')} to its form-action.",
                id="airisk_oauth.W008",
            )


def _code_warnings() -> Iterator[CheckMessage]:
    for alias in _usable_aliases():
        if not conf.is_written(alias, "CODE_FROM"):
            yield Warning(
                f"AIRISK_OAUTH[{alias!r}]: CODE_FROM is not set. Where a code carries its user, users can connect as "
                "somebody else.",
                hint="Run check_airisk --user NAME, which finds out whether CODE_FROM has to be 'server'; "
                "then write down that or 'browser'.",
                id="airisk_oauth.W010",
            )


def _form_actions() -> Iterator[Iterable[object]]:
    """Yield the sources of ``form-action`` of each policy that is enforced: Django's own, and that of django-csp.

    django-csp has one setting from version 4 on, and had one for each directive before.
    """
    policies = [getattr(settings, "SECURE_CSP", None), getattr(settings, "CONTENT_SECURITY_POLICY", None)]
    if policies[1] is not None:
        policies[1] = policies[1].get("DIRECTIVES")
    elif not getattr(settings, "CSP_REPORT_ONLY", False):
        policies[1] = {"form-action": getattr(settings, "CSP_FORM_ACTION", None)}
    for policy in policies:
        sources = (policy or {}).get("form-action")
        if isinstance(sources, str):
            yield [sources]
        elif sources not in (None, False):
            yield [] if sources is True else sources


def _allows(source: object, origin: tuple[str, str, int]) -> bool:
    """Tell whether a source expression matches an origin (CSP 3, section 6.7.2); a path in it says no more."""
    scheme, host, port = origin
    text = str(source)
    if text in ("*", f"{scheme}:"):
        return True
    has_scheme = "://" in text
    of_source = origin_of(text if has_scheme else f"{scheme}://{text}")
    if of_source is None or of_source[0] != scheme or of_source[2] != port:
        return False
    name = of_source[1]
    return host.endswith(name[1:]) if name.startswith("*.") else host == name


def _page_warnings() -> Iterator[CheckMessage]:
    if _OURS in settings.MIDDLEWARE and conf.page_url("connect") is None:
        yield Warning(
            "AIRiskMiddleware is in use, but there is no page to send people to who have to connect.",
            hint='Add path("airisk/", include("airisk_oauth.urls")) to urlpatterns. Ignore this where nobody connects.',
            id="airisk_oauth.W011",
        )


def _usable_aliases() -> Iterator[str]:
    try:
        for alias in conf.aliases():
            conf.deployment(alias)
            yield alias
    except ImproperlyConfigured:
        return
