"""A site with an API: Django REST framework and django-ninja authenticate by token, after all middleware has run.

By then, the site's own middleware has used ``request.airisk``.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

from django.core.management import call_command
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import include, path

from tests.sites import running
from tests.support import airisk

AIRISK = airisk.start()
FOLDER = tempfile.TemporaryDirectory()


def trace(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    def middleware(request: HttpRequest) -> HttpResponse:
        request.airisk.headers["X-Trace"] = f"trace-{request.user.pk}"  # type: ignore[attr-defined]
        return get_response(request)

    return middleware


running.configure(
    AIRISK.url,
    INSTALLED_APPS=[*running.APPS, "rest_framework", "rest_framework.authtoken", "ninja"],
    MIDDLEWARE=[*running.MIDDLEWARE, "__main__.trace"],
    REST_FRAMEWORK={"DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"]},
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": Path(FOLDER.name, "site.sqlite3")}},
)

from django.contrib.auth import login  # noqa: E402 - after the set-up
from ninja import NinjaAPI  # noqa: E402
from ninja.security import HttpBearer  # noqa: E402
from rest_framework.authentication import TokenAuthentication  # noqa: E402
from rest_framework.authtoken.models import Token  # noqa: E402
from rest_framework.decorators import api_view, authentication_classes, permission_classes  # noqa: E402
from rest_framework.permissions import IsAuthenticated  # noqa: E402
from rest_framework.request import Request  # noqa: E402
from rest_framework.response import Response  # noqa: E402

from tests.sites import mission as people  # noqa: E402


class ApiToken(HttpBearer):
    def authenticate(self, request: HttpRequest, token: str) -> Token | None:
        found = Token.objects.filter(key=token).first()
        if found is not None:
            request.user = found.user
        return found


ninja = NinjaAPI(auth=ApiToken())


@ninja.get("/conversations")
def ninja_conversations(request: HttpRequest) -> object:
    return request.airisk.get("/api/GetConversations").json()  # type: ignore[attr-defined]


@api_view()
@authentication_classes([TokenAuthentication])
@permission_classes([IsAuthenticated])
def drf_conversations(request: Request) -> Response:
    return Response(request.airisk.get("/api/GetConversations").json())


def sign_in_and_call(request: HttpRequest) -> HttpResponse:
    login(request, Token.objects.get(key=request.GET["key"]).user)
    return running.conversations(request)


urlpatterns = [
    path("airisk/", include("airisk_oauth.urls")),
    path("sign-in/", sign_in_and_call),
    path("drf/", drf_conversations),
    path("ninja/", ninja.urls),
]
PAGES = {"/drf/": "Token", "/ninja/conversations": "Bearer"}


def with_api_client(person: people.Person, page: str, browser: Client | None = None) -> people.Person:
    """Make this person call with their token, from an API client or from a browser where somebody else is signed in."""
    token, _created = Token.objects.get_or_create(user=person.user)
    person.page, person.caller = page, browser or people.new_browser()
    person.caller.defaults |= {"HTTP_AUTHORIZATION": f"{PAGES[page]} {token.key}", "HTTP_ACCEPT": "application/json"}
    return person


def drf_mission() -> None:
    people.mission(AIRISK, with_api_client(people.new_person("mia", "user_42"), "/drf/"))


def ninja_mission() -> None:
    people.mission(AIRISK, with_api_client(people.new_person("max", "user_43"), "/ninja/conversations"))


def token_counts_and_not_the_session_beside_it() -> None:
    for page in PAGES:
        ada, ben = (people.new_connected_person(AIRISK, f"{name}-{page}", name) for name in ("ada", "ben"))
        people.assert_called(with_api_client(ada, page, browser=ben.browser))


def login_in_a_view_counts_at_once() -> None:
    cleo = with_api_client(people.new_connected_person(AIRISK, "cleo", "cleo"), "/drf/")
    dan = people.new_connected_person(AIRISK, "dan", "dan")
    cleo.caller, cleo.page = dan.browser, f"/sign-in/?key={Token.objects.get(user=cleo.user).key}"
    people.assert_called(cleo)


def what_middleware_set_is_on_every_call() -> None:
    assert {call.headers.get("X-Trace", "")[:6] for call in AIRISK.calls} == {"trace-"}


call_command("migrate", verbosity=0)
running.keep(
    drf_mission,
    ninja_mission,
    token_counts_and_not_the_session_beside_it,
    login_in_a_view_counts_at_once,
    what_middleware_set_is_on_every_call,
)
