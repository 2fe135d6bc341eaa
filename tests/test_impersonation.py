"""Nobody connects another user, whichever package lets staff act as that user."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.auth import SESSION_KEY, login
from django.contrib.auth.models import User
from django.core.checks import Error, run_checks
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.test import Client
from django.urls import include, path

from airisk_oauth.connecting import impersonation
from airisk_oauth.models import AIRiskIdentity, AIRiskToken, PendingAuthorization
from airisk_oauth.sandbox.world import World
from tests.support.browsing import authorize, connect, start

if TYPE_CHECKING:
    from pytest_django import Settings

NAMES = ["loginas", "hijack"]


def sign_in_as(request: HttpRequest, name: str) -> HttpResponse:
    """What sites write themselves: a button for support staff that signs the session in as another user."""
    login(request, User.objects.get(username=name), "django.contrib.auth.backends.ModelBackend")
    request.session["support"] = True
    return HttpResponse()


urlpatterns = [path("sign-in-as/<str:name>/", sign_in_as), path("", include("tests.urls"))]


def replace_user(get_response: Callable[[HttpRequest], HttpResponseBase]) -> Callable[[HttpRequest], Any]:
    """What most packages do, whatever they keep in the session or a cookie: give the request another user."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        if name := request.headers.get("X-Act-As"):
            request.user = User.objects.get(username=name)
        return get_response(request)

    return middleware


def by_support(request: HttpRequest) -> bool:
    return bool(request.session.get("support"))


@pytest.fixture
def staff(mia: User, client: Client) -> Client:
    """The browser of a superuser with an AIRisk identity of their own."""
    admin = User.objects.create_superuser("ada")
    AIRiskIdentity.objects.create(user=admin, userid="user_1")
    client.force_login(admin)
    return client


def is_refused(browser: Client, **given: Any) -> bool:
    """Try to connect, and tell whether that was refused and nothing stored."""
    response: Any = browser.post("/airisk/connect/", **given)
    assert not AIRiskToken.objects.exists()
    return response.status_code == 403 and "your own account" in response.content.decode()


def test_user_replaced_by_middleware_is_refused(staff: Client, airisk: World, settings: "Settings") -> None:
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.replace_user"]
    acting: dict[str, Any] = {"headers": {"X-Act-As": "mia"}}
    assert is_refused(staff, **acting)
    back = authorize(start(staff))
    PendingAuthorization.objects.update(user=User.objects.get(username="mia"))
    assert staff.get(back, **acting).status_code == 403
    assert not AIRiskToken.objects.exists()


def test_loginas_is_refused_until_it_ends(staff: Client, mia: User, airisk: World, settings: "Settings") -> None:
    pytest.importorskip("loginas")
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "loginas"]
    settings.ROOT_URLCONF = (path("support/", include("loginas.urls")), path("", include("tests.urls")))
    staff.post(f"/support/login/user/{mia.pk}/")
    assert staff.session[SESSION_KEY] == str(mia.pk)
    assert is_refused(staff)
    staff.get("/support/logout/")
    connect(staff)
    assert AIRiskToken.objects.get().userid == "user_1"


@pytest.mark.parametrize("middleware", [[], ["hijack.middleware.HijackUserMiddleware"]], ids=len)
def test_hijack_is_refused_until_it_ends(
    middleware: list[str], staff: Client, mia: User, airisk: World, settings: "Settings"
) -> None:
    pytest.importorskip("hijack")
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "hijack"]
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, *middleware]
    settings.ROOT_URLCONF = (path("hijack/", include("hijack.urls")), path("", include("tests.urls")))
    staff.post("/hijack/acquire/", {"user_pk": mia.pk})
    assert staff.session[SESSION_KEY] == str(mia.pk)
    assert is_refused(staff)
    staff.post("/hijack/release/")
    connect(staff)
    assert AIRiskToken.objects.get().userid == "user_1"


@pytest.mark.urls(__name__)
def test_sites_own_function_detects_impersonation(staff: Client, airisk: World, settings: "Settings") -> None:
    settings.AIRISK_OAUTH_IMPERSONATED = f"{__name__}.by_support"
    start(staff)
    staff.get("/sign-in-as/mia/")
    assert is_refused(staff)


def test_loginas_with_another_flag_is_detected(
    staff: Client, mia: User, airisk: World, settings: "Settings", monkeypatch: pytest.MonkeyPatch
) -> None:
    """The setting can name the package's own function."""
    package = pytest.importorskip("loginas.settings")
    monkeypatch.setattr(package, "USER_SESSION_FLAG", "another_flag")
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "loginas"]
    settings.ROOT_URLCONF = (path("support/", include("loginas.urls")), path("", include("tests.urls")))
    settings.AIRISK_OAUTH_IMPERSONATED = "loginas.utils.is_impersonated_session"
    staff.post(f"/support/login/user/{mia.pk}/")
    assert is_refused(staff)


@pytest.mark.parametrize("wrong", ["", "nowhere", "nowhere.at_all", "airisk_oauth.conf.DEFAULT_ALIAS", 5, b"x.y"])
def test_wrong_impersonation_setting_is_an_error(wrong: Any, staff: Client, settings: "Settings") -> None:
    """If it were ignored, staff could connect any user."""
    settings.AIRISK_OAUTH_IMPERSONATED = wrong
    [message] = run_checks(tags=["airisk_oauth"])
    assert (message.id, isinstance(message, Error)) == ("airisk_oauth.E008", True)
    with pytest.raises(ImproperlyConfigured, match="AIRISK_OAUTH_IMPERSONATED"):
        staff.post("/airisk/connect/")


def test_right_impersonation_setting_is_accepted(settings: "Settings") -> None:
    settings.AIRISK_OAUTH_IMPERSONATED = f"{__name__}.by_support"
    assert run_checks(tags=["airisk_oauth"]) == []


@pytest.mark.parametrize(
    ("signed_in", "acts"),
    [("7", False), ("07", False), (" 7", False), ("8", True), ("", True), ("x", True)],
)
def test_user_keys_are_compared_as_django_does(signed_in: str, acts: bool, rf: Any) -> None:
    request = rf.get("/")
    request.session = {SESSION_KEY: signed_in}
    request.user = User(pk=7)
    assert impersonation.is_impersonated(request) is acts


def test_session_without_user_is_not_impersonated(rf: Any) -> None:
    request = rf.get("/")
    request.session = {}
    request.user = User(pk=7)
    assert not impersonation.is_impersonated(request)


def test_request_without_session_is_accepted(rf: Any) -> None:
    request = rf.get("/")
    request.user = User(pk=7)
    assert not impersonation.is_impersonated(request)
