"""System checks of what a user needs to connect: the page, a way to sign in, and policies that allow it."""

from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Warning  # noqa: A004 - Django's own name
from django.shortcuts import resolve_url
from django.urls import NoReverseMatch, Resolver404, get_script_prefix, resolve
from django.urls.resolvers import LocalePrefixPattern

from .. import conf
from ..oauth.deployment import origin_of

MIDDLEWARE = "airisk_oauth.middleware.AIRiskMiddleware"


def check_pages() -> Iterator[CheckMessage]:
    if MIDDLEWARE in settings.MIDDLEWARE and conf.page_url("connect") is None:
        yield Warning(
            "AIRiskMiddleware is in use, but the site has no page on which users can connect.",
            hint='Add path("airisk/", include("airisk_oauth.urls")) to urlpatterns, or ignore this if nobody connects.',
            id="airisk_oauth.W011",
        )


def check_login(aliases: Iterable[str]) -> Iterator[CheckMessage]:
    """Warn if users who have to sign in before they connect are sent to a page that does not exist."""
    if conf.page_url("connect") is not None and _leads_nowhere(settings.LOGIN_URL, aliases):
        yield Warning(
            "LOGIN_URL leads nowhere: this site has no such page, so nobody can sign in to connect.",
            hint='Set it to your login page, or for a start to "admin:login", which only lets staff in. '
            'The default needs path("accounts/login/", LoginView.as_view()) in urls.py, and a template '
            "registration/login.html. Ignore this if another server answers there.",
            id="airisk_oauth.W013",
        )


def _leads_nowhere(target: Any, aliases: Iterable[str]) -> bool:
    """Tell whether a URL, or the name of one, leads to no view of this site."""
    try:
        url = urlsplit(resolve_url(target))
        is_elsewhere = bool(url.scheme or url.netloc)
        return not is_elsewhere and not any(_is_found(path) for path in _possible_paths(url.path, aliases))
    except (NoReverseMatch, TypeError):
        return True
    except Exception:  # noqa: BLE001 - the site's own patterns may need a request
        return False


def _possible_paths(path: str, aliases: Iterable[str]) -> Iterator[str]:
    """Yield the paths to look up: a server may strip a prefix, and middleware may add a language or a slash."""
    language = LocalePrefixPattern().language_prefix
    for prefix in ("/", get_script_prefix(), *map(_stripped_prefix, aliases)):
        if path.startswith(prefix):
            rest = unquote(path.removeprefix(prefix))
            yield from (f"/{rest}", f"/{rest}/", f"/{language}{rest}", f"/{language}{rest}/")


def _stripped_prefix(alias: str) -> str:
    """Return what a proxy strips from the paths that browsers ask for, as ``REDIRECT_URI`` shows it."""
    callback, path = conf.page_url("callback", alias), urlsplit(conf.deployment(alias).redirect_uri).path
    return path.removesuffix(callback.removeprefix("/")) if callback and path.endswith(callback) else "/"


def _is_found(path: str) -> bool:
    try:
        resolve(path)
    except Resolver404:
        return False
    return True


def check_policies(aliases: Iterable[str]) -> Iterator[CheckMessage]:
    """Warn if a policy blocks Connect: Chromium applies ``form-action`` to a form's redirects, too, here to AIRisk."""
    policies = list(_form_actions())
    for alias in aliases:
        deployment = conf.deployment(alias)
        if not all(any(_allows(source, deployment.origin) for source in allowed) for allowed in policies):
            yield Warning(
                f"The content security policy does not allow forms to lead to AIRISK_OAUTH[{alias!r}]: Connect fails.",
                hint=f"Add {urljoin(deployment.base_url, '/').rstrip('/')} to its form-action.",
                id="airisk_oauth.W008",
            )


def _form_actions() -> Iterator[Iterable[object]]:
    """Yield the ``form-action`` sources of each policy that is enforced, Django's own and django-csp's.

    Since version 4, django-csp has one setting for the whole policy; before, it had one for each directive.
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
    """Tell whether a source expression matches an origin (CSP 3, section 6.7.2); its path is ignored."""
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
