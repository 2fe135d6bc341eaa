"""The check of LOGIN_URL: users who have to sign in before they connect need a page to do so."""

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from django.conf.urls.i18n import i18n_patterns
from django.core.checks import Warning, run_checks  # noqa: A004 - Django's own name
from django.test.utils import override_script_prefix
from django.urls import clear_url_caches, include, path, re_path, reverse_lazy
from django.urls.resolvers import RoutePattern, URLPattern
from django.views import View

from tests.support.options import set_option

Warns = Callable[[list[Any], Any], bool]
sign_in = View.as_view()
PLAIN = [path("accounts/login/", sign_in, name="login")]
IN_LANGUAGES = i18n_patterns(*PLAIN)
EVERYTHING = [re_path("^accounts/", sign_in, name="login")]
OTHERS = [path("login/", sign_in, name="sign-in")]


@pytest.fixture
def warns(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Warns:
    """Tell whether the check of a site with these patterns and our pages warns about this LOGIN_URL."""

    def check(patterns: list[Any], url: Any) -> bool:
        urlconf: Any = ModuleType("site_with_login")
        urlconf.urlpatterns = [path("airisk/", include("airisk_oauth.urls")), *patterns]
        monkeypatch.setitem(sys.modules, urlconf.__name__, urlconf)
        settings.ROOT_URLCONF = urlconf.__name__
        settings.LOGIN_URL = url
        clear_url_caches()
        found = [message for message in run_checks(tags=["airisk_oauth"]) if message.id == "airisk_oauth.W013"]
        assert all(isinstance(message, Warning) and "admin:login" in str(message.hint) for message in found)
        return bool(found)

    return check


@pytest.mark.parametrize("query", ["", "?theme=dark"])
@pytest.mark.parametrize("url", ["/accounts/login/", "/accounts/login", "/%61ccounts/login/"])
@pytest.mark.parametrize("patterns", [PLAIN, IN_LANGUAGES, EVERYTHING])
def test_login_url_may_be_a_path(warns: Warns, patterns: list[Any], url: str, query: str) -> None:
    assert not warns(patterns, url + query)


@pytest.mark.parametrize("url", ["login", reverse_lazy("login"), sign_in], ids=["name", "lazy", "view"])
@pytest.mark.parametrize("patterns", [PLAIN, IN_LANGUAGES, EVERYTHING])
def test_login_url_may_be_a_name(warns: Warns, patterns: list[Any], url: Any) -> None:
    assert not warns(patterns, url)


@pytest.mark.parametrize("url", ["https://sso.example.com/", "//sso.example.com/login"])
def test_login_url_may_lead_to_another_host(warns: Warns, url: str) -> None:
    assert not warns(OTHERS, url)


@pytest.mark.parametrize(
    "url",
    ["/accounts/login/", "login", "no:such", reverse_lazy("login"), "", None],
    ids=["path", "name", "namespace", "lazy", "empty", "none"],
)
def test_login_url_that_leads_nowhere_warns(warns: Warns, url: Any) -> None:
    assert warns(OTHERS, url)


def test_login_url_may_have_the_script_prefix(warns: Warns) -> None:
    assert warns(PLAIN, "/app/accounts/login/")
    with override_script_prefix("/app/"):
        assert not warns(PLAIN, "/app/accounts/login/")
        assert warns(OTHERS, "/app/accounts/login/")


def test_login_url_may_have_a_proxys_prefix(warns: Warns, settings: Any) -> None:
    """A proxy strips it, and REDIRECT_URI shows it."""
    set_option(settings, REDIRECT_URI="https://app.example.com/app/airisk/callback/")
    assert not warns(PLAIN, "/app/accounts/login/")
    assert not warns(PLAIN, "/accounts/login/")
    assert warns(OTHERS, "/app/accounts/login/")
    assert warns(OTHERS, "/accounts/login/")


class PatternOfTenant(RoutePattern):
    """A pattern that can only be matched in a request."""

    def match(self, path: str) -> Any:
        raise LookupError("no tenant")


def test_login_url_that_needs_a_request_is_accepted(warns: Warns) -> None:
    assert not warns([URLPattern(PatternOfTenant("accounts/"), sign_in)], "/accounts/login/")


def test_site_without_our_pages_needs_no_login(settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.site_views"
    settings.LOGIN_URL = "/nowhere/"
    assert run_checks(tags=["airisk_oauth"]) == []
