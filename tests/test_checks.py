"""The system checks, by id."""

from typing import TYPE_CHECKING, Any

import pytest
from cryptography.fernet import Fernet
from django.apps import apps
from django.conf import settings as site_settings
from django.core.checks import CheckMessage, Error, Warning, run_checks  # noqa: A004 - Django's own name
from django.db import connection, connections
from django.urls import path
from django.views import View

from airisk_oauth.checks import SQLITE_OPTIONS

if TYPE_CHECKING:
    from pytest_django import Settings

OURS = "airisk_oauth.middleware.AIRiskMiddleware"
GOOD = site_settings.AIRISK_OAUTH["default"]
AUTHENTICATION = "django.contrib.auth.middleware.AuthenticationMiddleware"

# A site that does not include the package's URLs.
urlpatterns = [path("", View.as_view())]


def check_messages() -> dict[str, CheckMessage]:
    """Return the messages of our checks, by id."""
    return {str(message.id): message for message in run_checks(tags=["airisk_oauth"])}


def with_redirect_uri(settings: "Settings", alias: str, uri: str) -> None:
    settings.AIRISK_OAUTH = {"default": settings.AIRISK_OAUTH["default"], alias: settings.AIRISK_OAUTH[alias]}
    settings.AIRISK_OAUTH[alias] = {**settings.AIRISK_OAUTH[alias], "REDIRECT_URI": uri}


def test_app_config_has_its_name_and_big_keys() -> None:
    config = apps.get_app_config("airisk_oauth")
    assert (config.verbose_name, config.default_auto_field) == ("AIRisk", "django.db.models.BigAutoField")


def test_documented_setup_passes_all_checks() -> None:
    assert check_messages() == {}


@pytest.mark.parametrize(
    ("number", "wrong"),
    [
        ("E001", None),
        ("E001", {"default": "https://demo.aicrisk.com"}),
        ("E002", {"no url": {}}),
        ("E003", {"default": {**GOOD, "UNKNOWN": "x"}}),
        ("E004", {"default": {name: value for name, value in GOOD.items() if name != "CLIENT_ID"}}),
        ("E005", {"default": {**GOOD, "BASE_URL": "http://demo.aicrisk.com"}}),
        ("E005", {"default": {**GOOD, "BASE_URL": "https://demo.aicrisk.com/?x"}}),
        ("E005", {"default": {**GOOD, "EXTRA_TOKEN_PARAMS": {"code": "x"}}}),
    ],
)
def test_invalid_setting_has_an_id_and_a_hint(settings: "Settings", number: str, wrong: Any) -> None:
    settings.AIRISK_OAUTH = wrong
    [(found, message)] = check_messages().items()
    assert found == f"airisk_oauth.{number}"
    assert isinstance(message, Error)
    assert message.hint


def test_checks_run_without_airisk_oauth_setting(settings: "Settings") -> None:
    del settings.AIRISK_OAUTH
    settings.USE_TZ = False
    assert set(check_messages()) == {"airisk_oauth.E001", "airisk_oauth.E006"}


def test_use_tz_off_is_an_error(settings: "Settings") -> None:
    settings.USE_TZ = False
    [(found, message)] = check_messages().items()
    assert (found, isinstance(message, Error)) == ("airisk_oauth.E006", True)


@pytest.mark.parametrize("keys", [[], "canary", ["canary"], [Fernet.generate_key()]], ids=str)
def test_invalid_key_list_hint_makes_a_key(settings: "Settings", keys: Any) -> None:
    settings.AIRISK_OAUTH_ENCRYPTION_KEYS = keys
    [(found, message)] = check_messages().items()
    assert (found, isinstance(message, Error)) == ("airisk_oauth.E007", True)
    assert "Fernet.generate_key()" in str(message.hint)
    assert "canary" not in f"{message.msg} {message.hint}"


@pytest.mark.parametrize(
    ("alias", "uri"),
    [
        ("default", "https://app.example.com/"),
        ("default", "https://app.example.com/airisk/callback"),
        ("default", "https://app.example.com/prefix/airisk/callback/"),
        ("default", "https://app.example.com/airisk/callback/second/"),
        ("second", "https://app.example.com/airisk/callback/"),
        ("second", "https://app.example.com/airisk/callback/default/"),
        ("second", "https://app.example.com/airisk/callback/second/second/"),
    ],
)
def test_redirect_uri_not_the_callback_warns(settings: "Settings", alias: str, uri: str) -> None:
    with_redirect_uri(settings, alias, uri)
    [(found, message)] = check_messages().items()
    assert (found, isinstance(message, Warning)) == ("airisk_oauth.W001", True)
    assert repr(alias) in message.msg
    assert "/airisk/callback/" in str(message.hint)


@pytest.mark.parametrize(
    ("alias", "uri"),
    [
        ("default", "http://localhost:8000/airisk/callback/"),
        ("default", "https://elsewhere.example.com/airisk/callback/default/"),
        ("second", "https://app.example.com/airisk/callback/second/"),
    ],
)
def test_both_callback_addresses_are_accepted(settings: "Settings", alias: str, uri: str) -> None:
    with_redirect_uri(settings, alias, uri)
    assert check_messages() == {}


@pytest.mark.parametrize("urlconf", ["tests.test_checks", None, ""])
def test_site_without_our_urls_gets_no_warning(settings: "Settings", urlconf: str | None) -> None:
    settings.ROOT_URLCONF = urlconf
    assert check_messages() == {}


def test_site_without_root_urlconf_is_accepted(settings: "Settings") -> None:
    del settings.ROOT_URLCONF
    assert check_messages() == {}


@pytest.mark.parametrize("key", ["CLIENT_ID", "CLIENT_SECRET"])
@pytest.mark.parametrize("value", ['"canary"', "'canary'"])
def test_quotes_around_a_credential_warn(settings: "Settings", key: str, value: str) -> None:
    settings.AIRISK_OAUTH = {"default": {**GOOD, key: value}}
    [(found, message)] = check_messages().items()
    assert (found, isinstance(message, Warning)) == ("airisk_oauth.W014", True)
    assert key in message.msg
    assert "canary" not in f"{message.msg} {message.hint}"


@pytest.mark.parametrize("value", ['"', "'canary", 'canary"', "'canary\"", 'ca"na"ry'])
def test_quotes_within_a_credential_are_accepted(settings: "Settings", value: str) -> None:
    settings.AIRISK_OAUTH = {"default": {**GOOD, "CLIENT_SECRET": value}}
    assert check_messages() == {}


@pytest.mark.parametrize("middleware", [[OURS], [OURS, AUTHENTICATION]], ids=len)
def test_middleware_above_authentication_warns(settings: "Settings", middleware: list[str]) -> None:
    settings.MIDDLEWARE = middleware
    [(found, message)] = check_messages().items()
    assert (found, isinstance(message, Warning)) == ("airisk_oauth.W002", True)
    assert OURS in str(message.hint)


@pytest.mark.parametrize("middleware", [[], [AUTHENTICATION], (AUTHENTICATION, OURS)], ids=len)
def test_our_middleware_is_optional(settings: "Settings", middleware: list[str]) -> None:
    settings.MIDDLEWARE = middleware
    assert check_messages() == {}


def test_strict_session_cookie_warns(settings: "Settings") -> None:
    settings.SESSION_COOKIE_SAMESITE = "Strict"
    [message] = check_messages().values()
    assert isinstance(message, Warning)
    assert "SESSION_COOKIE_SAMESITE" in f"{message.msg} {message.hint}"


# check --deploy

DECIDED = {**GOOD, "CODE_FROM": "browser"}
HARDENED: dict[str, Any] = {
    "AIRISK_OAUTH": {"default": DECIDED},
    "AIRISK_OAUTH_ENCRYPTION_KEYS": [Fernet.generate_key().decode()],
    "SESSION_COOKIE_SECURE": True,
    "SECURE_SSL_REDIRECT": True,
}


@pytest.fixture(autouse=True)
def database_with_good_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give SQLite the recommended options, unless a test sets others."""
    if connection.vendor == "sqlite":
        set_up_database(monkeypatch, OPTIONS=SQLITE_OPTIONS)


def deployment_messages(settings: "Settings", **given: Any) -> dict[str, CheckMessage]:
    """Return our messages of `check --deploy` for a secure site with some settings changed, by number."""
    for name, value in {**HARDENED, **given}.items():
        setattr(settings, name, value)
    found = run_checks(tags=["security"], include_deployment_checks=True)
    return {str(message.id).removeprefix("airisk_oauth."): message for message in found if "airisk" in str(message.id)}


@pytest.mark.parametrize(
    ("number", "given", "named"),
    [
        ("W004", {"AIRISK_OAUTH_ENCRYPTION_KEYS": None}, "AIRISK_OAUTH_ENCRYPTION_KEYS"),
        ("W005", {"SESSION_COOKIE_SECURE": False}, "SESSION_COOKIE_SECURE"),
        ("W006", {"SECURE_SSL_REDIRECT": False}, "SECURE_SSL_REDIRECT"),
        ("W007", {"AIRISK_OAUTH": {"default": {**DECIDED, "BASE_URL": "http://127.0.0.1:8080"}}}, "BASE_URL"),
        (
            "W007",
            {"AIRISK_OAUTH": {"default": {**DECIDED, "REDIRECT_URI": "http://localhost/airisk/callback/"}}},
            "_URI",
        ),
        ("W008", {"SECURE_CSP": {"form-action": ["'self'"]}}, "https://demo.aicrisk.com"),
        ("W010", {"AIRISK_OAUTH": {"default": GOOD}}, "check_airisk"),
    ],
)
def test_insecure_setting_warns_on_deployment(
    settings: "Settings", number: str, given: dict[str, Any], named: str
) -> None:
    assert "E100" in deployment_messages(settings), "the sandbox"
    others = {name: message for name, message in deployment_messages(settings, **given).items() if name != "E100"}
    assert set(others) == {number}
    assert isinstance(others[number], Warning)
    assert named in f"{others[number].msg} {others[number].hint}"
    assert others[number].hint


@pytest.mark.parametrize(
    ("source", "allows"),
    [
        ("*", True),
        ("https:", True),
        ("https://demo.aicrisk.com", True),
        ("https://demo.aicrisk.com/", True),
        ("https://DEMO.aicrisk.com:443", True),
        ("demo.aicrisk.com", True),
        ("*.aicrisk.com", True),
        ("'self'", False),
        ("'none'", False),
        ("http:", False),
        ("http://demo.aicrisk.com", False),
        ("https://demo.aicrisk.com:8443", False),
        ("https://aicrisk.com", False),
        ("*.demo.aicrisk.com", False),
        ("https://evil.example", False),
        ("https://demo.aicrisk.com:no-port", False),
    ],
)
@pytest.mark.parametrize("setting", ["SECURE_CSP", "CONTENT_SECURITY_POLICY", "CSP_FORM_ACTION"])
def test_form_action_must_allow_airisk(settings: "Settings", setting: str, source: str, allows: bool) -> None:
    sources = ["'self'", source]
    given: dict[str, Any] = {
        "SECURE_CSP": {"form-action": sources},
        "CONTENT_SECURITY_POLICY": {"DIRECTIVES": {"form-action": set(sources)}},
        "CSP_FORM_ACTION": tuple(sources),
    }
    found = deployment_messages(settings, **{setting: given[setting]})
    assert ("W008" in found) is not allows


@pytest.mark.parametrize(
    "given",
    [
        {"SECURE_CSP": {}},
        {"SECURE_CSP": {"default-src": ["'self'"]}},
        {"SECURE_CSP": {"form-action": "https://demo.aicrisk.com"}},
        {"SECURE_CSP": {"form-action": None}},
        {"SECURE_CSP": {"form-action": False}},
        {"CONTENT_SECURITY_POLICY": None},
        {"CONTENT_SECURITY_POLICY": {}},
        {"CONTENT_SECURITY_POLICY": {"DIRECTIVES": None}},
        {"CSP_FORM_ACTION": None},
        {"CSP_FORM_ACTION": "https://demo.aicrisk.com"},
        # The policy is not enforced, or the installed version of django-csp does not read this setting any more.
        {"CSP_FORM_ACTION": ["'self'"], "CSP_REPORT_ONLY": True},
        {"CSP_FORM_ACTION": ["'self'"], "CONTENT_SECURITY_POLICY": {"DIRECTIVES": {}}},
    ],
    ids=str,
)
def test_policy_that_allows_connect_is_accepted(settings: "Settings", given: dict[str, Any]) -> None:
    assert "W008" not in deployment_messages(settings, **given)


@pytest.mark.parametrize(
    "given",
    [
        {"SECURE_CSP": {"form-action": True}},
        {"SECURE_CSP": {"form-action": []}},
        {"SECURE_CSP": {"form-action": "*"}, "CSP_FORM_ACTION": "'self'"},
        {"SECURE_CSP": {"form-action": "'self'"}, "CSP_FORM_ACTION": "*"},
    ],
    ids=str,
)
def test_every_policy_must_allow_connect(settings: "Settings", given: dict[str, Any]) -> None:
    assert "W008" in deployment_messages(settings, **given)


# SQLite


def set_up_database(monkeypatch: pytest.MonkeyPatch, **given: Any) -> None:
    for name, value in given.items():
        monkeypatch.setitem(connections["default"].settings_dict, name, value)


@pytest.mark.once
@pytest.mark.parametrize(
    ("options", "waits"),
    [
        (SQLITE_OPTIONS, True),
        ({**SQLITE_OPTIONS, "transaction_mode": "exclusive", "init_command": "pragma journal_mode = 'wal';"}, True),
        ({}, False),
        ({"timeout": 20}, False),
        ({**SQLITE_OPTIONS, "transaction_mode": "DEFERRED"}, False),
        ({**SQLITE_OPTIONS, "transaction_mode": None}, False),
        ({**SQLITE_OPTIONS, "timeout": 5}, False),
        ({**SQLITE_OPTIONS, "init_command": None}, False),
        ({**SQLITE_OPTIONS, "init_command": "PRAGMA journal_mode=DELETE"}, False),
    ],
    ids=str,
)
def test_sqlite_that_does_not_wait_warns(
    settings: "Settings", monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], waits: bool
) -> None:
    """With ATOMIC_REQUESTS every check warns, because requests fail from the start; without, `check --deploy` does."""
    set_up_database(monkeypatch, OPTIONS=options, ATOMIC_REQUESTS=True)
    found = check_messages()
    assert found.keys() == (set() if waits else {"airisk_oauth.W009"})
    for message in found.values():
        assert all(repr(name) in str(message.hint) for name in ("transaction_mode", "timeout", "init_command"))
    assert "W009" not in deployment_messages(settings)
    set_up_database(monkeypatch, ATOMIC_REQUESTS=False)
    assert check_messages() == {}
    assert ("W009" in deployment_messages(settings)) is not waits


@pytest.mark.once
def test_sqlite_in_memory_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    set_up_database(monkeypatch, OPTIONS={}, ATOMIC_REQUESTS=True, NAME=":memory:")
    assert check_messages() == {}


class TenantRouter:
    """A router that only knows where to write within a request of a tenant."""

    def db_for_write(self, model: Any, **hints: Any) -> str:
        raise LookupError("no tenant")

    def allow_migrate(self, database: str, app_label: str, **hints: Any) -> bool:
        return app_label != "airisk_oauth" or self.has_ours

    has_ours = True


class RouterElsewhere(TenantRouter):
    has_ours = False


@pytest.mark.once
@pytest.mark.parametrize("router", [TenantRouter, RouterElsewhere])
def test_sqlite_is_checked_where_tables_may_be(
    router: type[TenantRouter], settings: "Settings", monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up_database(monkeypatch, OPTIONS={}, ATOMIC_REQUESTS=True)
    settings.DATABASE_ROUTERS = [f"{__name__}.{router.__name__}"]
    assert ("airisk_oauth.W009" in check_messages()) is router.has_ours


def test_other_databases_need_no_options(monkeypatch: pytest.MonkeyPatch) -> None:
    set_up_database(monkeypatch, OPTIONS={}, ATOMIC_REQUESTS=True)
    monkeypatch.setattr(connections["default"], "vendor", "postgresql")
    assert check_messages() == {}


# Pages


def test_middleware_without_pages_warns(settings: "Settings") -> None:
    settings.ROOT_URLCONF = __name__
    [message] = [message for number, message in deployment_messages(settings).items() if number != "E100"]
    assert (message.id, isinstance(message, Warning)) == ("airisk_oauth.W011", True)
    assert 'include("airisk_oauth.urls")' in str(message.hint)
    settings.MIDDLEWARE = []
    assert set(deployment_messages(settings)) == {"E100"}


@pytest.mark.parametrize("value", ["browser", "server"])
def test_explicit_code_from_does_not_warn(settings: "Settings", value: str) -> None:
    decided, open_question = {**GOOD, "CODE_FROM": value}, site_settings.AIRISK_OAUTH["second"]
    assert "W010" not in deployment_messages(settings, AIRISK_OAUTH={"default": decided})
    found = deployment_messages(settings, AIRISK_OAUTH={"default": decided, "second": open_question})
    assert "'second'" in found["W010"].msg
