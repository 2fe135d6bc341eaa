"""Finds the addresses of our pages: a site may include them in a namespace, more than once, or not at all."""

from collections.abc import Iterator
from functools import lru_cache
from itertools import takewhile
from typing import TYPE_CHECKING, Final

from django.conf import settings
from django.urls import NoReverseMatch, URLResolver, get_resolver, get_urlconf, reverse

if TYPE_CHECKING:
    from django.http import HttpRequest

_NAMESPACE: Final = "airisk_oauth"
_VIEWS: Final = "airisk_oauth.views."


def find(view: str, *args: str, request: "HttpRequest | None" = None) -> str | None:
    """Return the path of one of our views, or ``None`` where the site does not include it.

    The URL configuration of the current request is searched. If it includes our pages more than once, the inclusion
    nearest to ``request`` is chosen; without a request, the one whose namespace is ``airisk_oauth``, as Django does.

    :param view: name of a function in ``airisk_oauth.views``.
    :param args: positional arguments of the URL.
    """
    urlconf = get_urlconf() or getattr(settings, "ROOT_URLCONF", None)
    if not urlconf:
        return None
    here = _namespaces_of(request)
    for name in sorted(_names(get_resolver(urlconf)).get(view, ()), key=lambda name: _distance(name, here)):
        try:
            return reverse(name, args=args)
        except NoReverseMatch:
            # It is included below a path with arguments that only its own requests have.
            continue
    return None


@lru_cache(maxsize=16)
def _names(resolver: URLResolver) -> dict[str, list[str]]:
    """Return, for each of our views, the names that a URL configuration gives it, with their namespaces."""
    names: dict[str, list[str]] = {}
    for view, name in _walk(resolver, ""):
        if name not in names.setdefault(view, []):
            names[view].append(name)
    return names


def _walk(resolver: URLResolver, namespace: str) -> Iterator[tuple[str, str]]:
    # Backwards, because Django prefers the last inclusion.
    for pattern in reversed(resolver.url_patterns):
        if isinstance(pattern, URLResolver):
            inner = f"{namespace}{pattern.namespace}:" if pattern.namespace else namespace
            yield from _walk(pattern, inner)
        elif pattern.name and pattern.lookup_str.startswith(_VIEWS):
            yield pattern.lookup_str.removeprefix(_VIEWS), f"{namespace}{pattern.name}"


def _namespaces_of(request: "HttpRequest | None") -> list[str]:
    """Return the namespaces that a request's URL is in, outermost first."""
    match = getattr(request, "resolver_match", None)
    current = getattr(request, "current_app", None) or (match.namespace if match else "")
    return current.split(":") if current else []


def _distance(name: str, here: list[str]) -> tuple[int, bool]:
    """Return a sort key for a name: the more outer namespaces it shares with the request's, the earlier it comes."""
    namespaces = name.split(":")[:-1]
    common = sum(1 for _pair in takewhile(lambda pair: pair[0] == pair[1], zip(namespaces, here, strict=False)))
    return -common, namespaces != [_NAMESPACE]
