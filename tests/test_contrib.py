"""APIs of Django REST framework and django-ninja, which sign their users in later than all middleware."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.http import Http404, HttpRequest
from django.test import Client
from django.urls import include, path
from ninja import NinjaAPI
from ninja.security import HttpBearer
from rest_framework.authentication import BaseAuthentication
from rest_framework.decorators import api_view, authentication_classes, permission_classes
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import BasePermission, IsAuthenticated
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework.viewsets import ViewSet

from airisk_oauth import AIRiskSession
from airisk_oauth.connecting.api import answer_for
from airisk_oauth.contrib.ninja import add_exception_handlers
from airisk_oauth.contrib.rest_framework import IsConnected
from airisk_oauth.decorators import airisk_required
from airisk_oauth.exceptions import AIRiskRefused, AIRiskUnavailable, ConnectionRequired
from airisk_oauth.mixins import AIRiskRequiredMixin
from airisk_oauth.models import AIRiskIdentity
from airisk_oauth.sandbox.world import World
from tests.support.database import committing
from tests.support.people import give_token, live_token

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__), pytest.mark.once]


# An API of each kind


class NameAuthentication(BaseAuthentication):  # type: ignore[misc]
    """Signs in whom the header names: there is no session, and Django's middleware has seen nobody."""

    def authenticate(self, request: Any) -> tuple[User, None] | None:
        kind, _, name = request.headers.get("Authorization", "").partition(" ")
        if kind != "Bearer":
            return None
        try:
            return User.objects.get(username=name), None
        except User.DoesNotExist:
            raise AuthenticationFailed from None

    def authenticate_header(self, request: Any) -> str:
        return "Bearer"


class NameBearer(HttpBearer):
    def authenticate(self, request: HttpRequest, token: str) -> User | None:
        user = User.objects.filter(username=token).first()
        if user is not None:
            request.user = user
        return user


class View(APIView):  # type: ignore[misc]
    authentication_classes = [NameAuthentication]
    permission_classes: list[Any] = [IsAuthenticated]

    def get(self, request: Any) -> Response:
        return Response(request.airisk.get("/api/GetConversations").json())


class WithPermission(View):
    permission_classes = [IsAuthenticated, IsConnected]

    def get(self, request: Any) -> Response:
        return Response("connected")


class WithPermissionOnly(WithPermission):
    permission_classes = [IsConnected]


class WithSecond(WithPermission):
    airisk_deployment = "second"


class IsStaff(BasePermission):  # type: ignore[misc]
    def has_permission(self, request: Any, view: Any) -> bool:
        return bool(request.user.is_staff)


class WithAlternative(WithPermission):
    permission_classes = [IsConnected | IsStaff]


class WithMixin(AIRiskRequiredMixin, WithPermission):
    permission_classes = [IsAuthenticated]


class WithMixinForSecond(WithMixin):
    airisk_deployment = "second"


class WithMixinInViewSet(AIRiskRequiredMixin, ViewSet):  # type: ignore[misc]
    authentication_classes = [NameAuthentication]
    permission_classes = (IsAuthenticated,)

    def list(self, request: Any) -> Response:
        return Response("connected")


@api_view()  # type: ignore[untyped-decorator]
@authentication_classes([NameAuthentication])  # type: ignore[untyped-decorator]
@permission_classes([IsAuthenticated])  # type: ignore[untyped-decorator]
@airisk_required
def with_decorator(request: Any) -> Response:
    return Response("connected")


class OfApplication(View):
    def get(self, request: Any) -> Response:
        with AIRiskSession.for_application() as airisk:
            return Response(airisk.get("/api/Chat/ListAgents").json())


class Writing(View):
    def get(self, request: Any) -> Response:
        User.objects.create_user("written")
        return Response(request.airisk.get("/api/GetConversations").json())


class Missing(View):
    def get(self, request: Any) -> Response:
        raise Http404


api = NinjaAPI(auth=NameBearer())
add_exception_handlers(api)


@api.get("/calling")
def calling(request: Any) -> Any:
    return request.airisk.get("/api/GetConversations").json()


@api.get("/decorated")
@airisk_required
def decorated(request: Any, page: int = 1) -> str:
    return "connected"


@api.get("/decorated-async")
@airisk_required
async def decorated_async(request: Any) -> str:
    return "connected"


@api.get("/of-application")
def of_application(request: Any) -> Any:
    with AIRiskSession.for_application() as airisk:
        return airisk.get("/api/Chat/ListAgents").json()


@api.get("/writing")
def writing(request: Any) -> Any:
    User.objects.create_user("written")
    return request.airisk.get("/api/GetConversations").json()


@api.get("/missing")
def missing(request: Any) -> None:
    raise Http404


urlpatterns = [
    path("", include("tests.urls")),
    path("drf/calling", View.as_view()),
    path("drf/with-permission", WithPermission.as_view()),
    path("drf/with-permission-only", WithPermissionOnly.as_view()),
    path("drf/with-second", WithSecond.as_view()),
    path("drf/with-alternative", WithAlternative.as_view()),
    path("drf/with-mixin", WithMixin.as_view()),
    path("drf/with-mixin-for-second", WithMixinForSecond.as_view()),
    path("drf/with-mixin-in-view-set", WithMixinInViewSet.as_view({"get": "list"})),
    path("drf/with-decorator", with_decorator),
    path("drf/of-application", OfApplication.as_view()),
    path("drf/writing", Writing.as_view()),
    path("drf/missing", Missing.as_view()),
    path("ninja/", api.urls),
]
BOTH = ["drf", "ninja"]
GUARDED = [
    "drf/with-permission",
    "drf/with-permission-only",
    "drf/with-alternative",
    "drf/with-mixin",
    "drf/with-mixin-in-view-set",
    "drf/with-decorator",
    "ninja/decorated",
    "ninja/decorated-async",
]
SECOND = ["drf/with-second", "drf/with-mixin-for-second"]


@pytest.fixture(params=[False, True], ids=["production", "debug"])
def site(request: Any, settings: Any) -> None:
    """A site whose APIs know AIRisk's errors; on a developer's machine, too."""
    settings.DEBUG = request.param
    settings.REST_FRAMEWORK = {"EXCEPTION_HANDLER": "airisk_oauth.contrib.rest_framework.exception_handler"}


def call(page: str, name: str = "mia", accept: str = "application/json", browser: Client | None = None) -> Any:
    headers = {"Authorization": f"Bearer {name}" if name else "", "Accept": accept}
    return (browser or Client()).get(f"/{page}", headers=headers)


# Errors


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.usefixtures("site")
def test_client_is_told_where_to_connect(kind: str, mia: User, airisk: World) -> None:
    response = call(f"{kind}/calling")
    assert (response.status_code, response["Content-Type"].partition(";")[0]) == (403, "application/json")
    assert response.json() == {
        "detail": "This user has not connected to AIRisk.",
        "connect_url": "/airisk/connect/",
    }
    assert airisk.journal == []


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(("named", "sent"), [(None, "30"), (7, "7")])
@pytest.mark.usefixtures("site")
def test_outage_is_a_503_with_retry_after(kind: str, named: int | None, sent: str, mia: User, airisk: World) -> None:
    give_token(mia, ends_in=-60)
    airisk.switches.outage, airisk.switches.retry_after = True, named
    response = call(f"{kind}/calling")
    assert (response.status_code, response["Retry-After"]) == (503, sent)
    assert response.json() == {
        "detail": "AIRisk could not be reached. It may be down for a moment. Please try again in a few minutes."
    }


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.usefixtures("site")
def test_applications_failure_is_left_to_the_site(kind: str, mia: User, airisk: World) -> None:
    airisk.switches.login_page = True
    with pytest.raises(ConnectionRequired):
        call(f"{kind}/of-application")


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.usefixtures("site")
def test_errors_of_the_framework_are_left_to_it(kind: str, mia: User) -> None:
    assert call(f"{kind}/missing").status_code == 404


@pytest.mark.parametrize("kind", BOTH)
@committing
@pytest.mark.usefixtures("site")
def test_failed_request_is_rolled_back(kind: str, mia: User, airisk: World) -> None:
    """As it is without an exception handler: a client that tries again finds nothing half done."""
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    try:
        assert call(f"{kind}/writing").status_code == 403
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False
    assert not User.objects.filter(username="written").exists()


@committing
@pytest.mark.usefixtures("site")
def test_only_atomic_requests_are_rolled_back(mia: User, airisk: World) -> None:
    assert call("ninja/writing").status_code == 403
    assert User.objects.filter(username="written").exists()


@pytest.mark.parametrize(("asked", "sent"), [(None, "30"), (0, "1"), (0.2, "1"), (2.1, "3"), (1e6, "3600")])
def test_retry_after_is_whole_seconds_with_a_cap(asked: float | None, sent: str) -> None:
    answer = answer_for(AIRiskUnavailable("AIRisk answered with status 503.", retry_after=asked))
    assert answer is not None
    assert answer.headers == {"Retry-After": sent}


def test_outage_answer_hides_internal_addresses() -> None:
    answer = answer_for(AIRiskUnavailable("The proxy proxy.internal:3128 cannot be used."))
    assert answer is not None
    assert "internal" not in str(answer)


@pytest.mark.parametrize("error", [AIRiskRefused(400), ConnectionRequired("Nobody can connect."), ValueError()])
def test_other_errors_have_no_answer_for_clients(error: Exception) -> None:
    assert answer_for(error) is None


# Views that need a connection


@pytest.mark.parametrize("page", GUARDED)
def test_connected_client_passes_the_guard(page: str, mia: User, airisk: World) -> None:
    give_token(mia)
    response = call(page)
    assert (response.status_code, response.json()) == (200, "connected")
    assert airisk.journal == []


@pytest.mark.parametrize("page", GUARDED)
def test_guard_tells_client_where_to_connect(page: str, mia: User) -> None:
    response = call(page)
    assert response.status_code == 403
    if page == "drf/with-alternative":
        assert set(response.json()) == {"detail"}
    else:
        assert response.json() == {
            "detail": "This user has not connected to AIRisk.",
            "connect_url": "/airisk/connect/",
        }


@pytest.mark.parametrize("page", SECOND)
def test_guard_looks_at_the_views_deployment(page: str, mia: User) -> None:
    give_token(mia)
    assert call(page).json()["connect_url"] == "/airisk/connect/second/"
    AIRiskIdentity.objects.create(user=mia, deployment="second", userid="user_42")
    give_token(mia, deployment="second")
    assert call(page).status_code == 200


@pytest.mark.parametrize("page", GUARDED)
def test_guard_leaves_unknown_clients_to_the_api(page: str, mia: User) -> None:
    response = call(page, name="")
    assert response.status_code == 401
    assert "connect_url" not in response.json()


def test_permission_can_be_one_of_several(mia: User) -> None:
    User.objects.filter(pk=mia.pk).update(is_staff=True)
    assert call("drf/with-alternative").json() == "connected"


@pytest.mark.parametrize("page", ["drf/with-permission", "drf/with-mixin", "drf/with-mixin-in-view-set"])
def test_permission_needs_a_page_to_connect_on(page: str, mia: User, settings: Any) -> None:
    """Without one, whoever runs the site has to know, and no client."""
    settings.ROOT_URLCONF = tuple(urlpatterns[1:])
    with pytest.raises(ConnectionRequired):
        call(page)


@pytest.mark.parametrize("page", ["drf/with-permission", "drf/with-mixin"])
def test_browsable_api_shows_the_refusal(page: str, mia: User, settings: Any) -> None:
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "rest_framework"]
    response = call(page, accept="text/html")
    assert response.status_code == 403
    assert b"/airisk/connect/" in response.content


# Whose token


@pytest.mark.parametrize("kind", BOTH)
def test_call_is_the_clients_and_not_the_sessions(kind: str, mia: User, airisk: World) -> None:
    live_token(airisk, mia)
    ben = User.objects.create_user("ben")
    browser = Client()
    browser.force_login(ben)
    assert call(f"{kind}/calling", browser=browser).status_code == 200
    assert airisk.journal[-1].values["userid"] == "user_42"
