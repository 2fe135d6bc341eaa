"""Headers that affect our pages: a site's content security policy, and our own referrer policy."""

import re
from typing import TYPE_CHECKING, Any

import django
import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import Client

from airisk_oauth.admin import searching
from tests.support.people import give_token

if TYPE_CHECKING:
    from types import ModuleType

    from pytest_django import Settings

PAGES = ["/airisk/", "/airisk/connect/", "/airisk/callback/", "/admin/airisk_oauth/airisktoken/"]


def nonces_of(response: Any) -> set[str]:
    """Return the nonces of all inline styles of a page, an empty one where a style has none."""
    styles = re.findall(r"<style([^>]*)>", response.content.decode())
    assert styles
    return {str(re.sub(r'^ nonce="([^"]*)"$', r"\1", style)) for style in styles}


def allowed_by(response: Any) -> set[str]:
    return set(re.findall(r"'nonce-([^']+)'", response["Content-Security-Policy"]))


def add_middleware(settings: "Settings", path: str) -> None:
    settings.MIDDLEWARE = [path, *settings.MIDDLEWARE]


@pytest.fixture
def staff(mia: User, browser: Client) -> Client:
    """The browser of a user who may see every page."""
    mia.is_staff = mia.is_superuser = True
    mia.save()
    give_token(mia)
    return browser


@pytest.mark.parametrize("page", PAGES)
def test_styles_pass_the_policy_of_django_csp(page: str, staff: Client, settings: "Settings") -> None:
    csp: ModuleType = pytest.importorskip("csp.constants")
    settings.CONTENT_SECURITY_POLICY = {"DIRECTIVES": {"style-src": [csp.SELF, csp.NONCE]}}
    add_middleware(settings, "csp.middleware.CSPMiddleware")
    response = staff.get(page)
    [nonce] = nonces_of(response)
    assert allowed_by(response) == {nonce}
    assert nonces_of(staff.get(page)) != {nonce}


@pytest.mark.skipif(django.VERSION < (6, 0), reason="Django has no such middleware before 6.0")
@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("processors", [[], ["django.template.context_processors.csp"]], ids=len)
def test_styles_pass_the_policy_of_django(
    processors: list[str], page: str, staff: Client, settings: "Settings"
) -> None:
    settings.SECURE_CSP = {"style-src": ["'self'", "<CSP_NONCE_SENTINEL>"]}
    add_middleware(settings, "django.middleware.csp.ContentSecurityPolicyMiddleware")
    [engine] = settings.TEMPLATES
    all_processors = [*engine["OPTIONS"]["context_processors"], *processors]
    settings.TEMPLATES = [{**engine, "OPTIONS": {"context_processors": all_processors}}]
    response = staff.get(page)
    [nonce] = nonces_of(response)
    assert allowed_by(response) == {nonce}


@pytest.mark.parametrize("page", PAGES)
def test_styles_have_no_nonce_without_a_policy(page: str, staff: Client) -> None:
    assert nonces_of(staff.get(page)) == {""}


@pytest.mark.parametrize("page", PAGES)
def test_styles_take_the_nonce_of_a_sites_own(page: str, staff: Client, settings: "Settings") -> None:
    [engine] = settings.TEMPLATES
    processors = [*engine["OPTIONS"]["context_processors"], f"{__name__}.own_nonce"]
    settings.TEMPLATES = [{**engine, "OPTIONS": {"context_processors": processors}}]
    assert nonces_of(staff.get(page)) == {"n0nce"}


def test_script_of_a_long_list_takes_the_nonce(
    staff: Client, settings: "Settings", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "LARGE", 0)
    [engine] = settings.TEMPLATES
    processors = [*engine["OPTIONS"]["context_processors"], f"{__name__}.own_nonce"]
    settings.TEMPLATES = [{**engine, "OPTIONS": {"context_processors": processors}}]
    cache.clear()
    assert '<script nonce="n0nce">' in staff.get("/admin/airisk_oauth/airisktoken/").text
    cache.clear()


def own_nonce(request: Any) -> dict[str, str]:
    return {"csp_nonce": "n0nce"}


@pytest.mark.parametrize("page", ["/airisk/callback/", "/airisk/callback/?code=a&state=b", "/airisk/callback/nowhere/"])
def test_callback_tells_other_sites_no_path(page: str, browser: Client) -> None:
    """``no-referrer`` would make browsers send ``Origin: null`` with the page's forms, which Django refuses."""
    assert browser.get(page)["Referrer-Policy"] == "strict-origin"
