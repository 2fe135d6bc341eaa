"""What a developer reads who has left out a part of the setup."""

from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory
from django.views import View
from rest_framework.test import force_authenticate
from rest_framework.views import APIView

from airisk_oauth import AIRiskSession
from airisk_oauth.chat import answer_response
from airisk_oauth.decorators import airisk_required
from airisk_oauth.exceptions import ConnectionRequired
from airisk_oauth.mixins import AIRiskRequiredMixin
from tests.support.people import give_token

pytestmark = [pytest.mark.django_db, pytest.mark.once]
OURS = "airisk_oauth.middleware.AIRiskMiddleware"
AUTHENTICATION = "django.contrib.auth.middleware.AuthenticationMiddleware"


@airisk_required
def calling(request: Any) -> HttpResponse:
    return HttpResponse(request.airisk.get("/api/GetConversations"))


@airisk_required
async def calling_async(request: Any) -> HttpResponse:
    return HttpResponse(await request.airisk.aclient.get("/api/GetConversations"))


@airisk_required
def answering(request: Any) -> Any:
    return answer_response(request, "7c9e6679-7425-40de-944b-e07fc1f90ae7", "Why?")


class Calling(AIRiskRequiredMixin, View):
    def get(self, request: Any) -> HttpResponse:
        return HttpResponse(request.airisk.get("/api/GetConversations"))


class CallingAsync(AIRiskRequiredMixin, View):
    async def get(self, request: Any) -> HttpResponse:
        return HttpResponse(await request.airisk.aclient.get("/api/GetConversations"))


class CallingApi(AIRiskRequiredMixin, APIView):  # type: ignore[misc]
    def get(self, request: Any) -> HttpResponse:
        return HttpResponse(request.airisk.get("/api/GetConversations"))


VIEWS: list[Any] = [calling, calling_async, answering, Calling.as_view(), CallingAsync.as_view(), CallingApi.as_view()]


def request_of(user: User) -> HttpRequest:
    """Return a request that went through none of our middleware."""
    request = RequestFactory().get("/")
    request.user = user
    force_authenticate(request, user)
    return request


def visit(view: Callable[..., Any], request: HttpRequest) -> Any:
    return async_to_sync(view)(request) if iscoroutinefunction(view) else view(request)


@pytest.mark.parametrize("view", VIEWS)
def test_view_names_the_missing_middleware(view: Any, mia: User) -> None:
    give_token(mia)
    with pytest.raises(ImproperlyConfigured) as caught:
        visit(view, request_of(mia))
    assert str(caught.value) == f'This view needs request.airisk. Add "{OURS}" to MIDDLEWARE.'


def test_other_missing_attributes_are_left_alone(mia: User) -> None:
    @airisk_required
    def view(request: Any) -> HttpResponse:
        return HttpResponse(request.tenant)

    @airisk_required
    def confused(request: Any) -> HttpResponse:
        request.airisk = None
        return HttpResponse(request.user.airisk)

    give_token(mia)
    for each in (view, confused):
        with pytest.raises(AttributeError, match="has no attribute"):
            visit(each, request_of(mia))


@pytest.mark.parametrize("view", VIEWS[:-1])
def test_view_names_missing_authentication(view: Any) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        visit(view, RequestFactory().get("/"))
    assert str(caught.value) == f'airisk_required needs request.user. Add "{AUTHENTICATION}" to MIDDLEWARE.'


@pytest.mark.parametrize("path", ["/needs/", "/needs-class/"])
def test_error_names_the_missing_include(browser: Client, settings: Any, path: str) -> None:
    settings.ROOT_URLCONF = "tests.site_views"
    with pytest.raises(ConnectionRequired) as caught:
        browser.get(path)
    [note] = caught.value.__notes__
    assert 'include("airisk_oauth.urls")' in note
    assert note not in str(caught.value)


def test_applications_error_names_no_include(airisk: Any) -> None:
    airisk.switches.login_page = True
    with pytest.raises(ConnectionRequired) as caught, AIRiskSession.for_application() as session:
        session.get("/api/GetConversations")
    assert not hasattr(caught.value, "__notes__")
