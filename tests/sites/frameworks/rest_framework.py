"""An API of Django REST framework, whose clients sign in by a token."""

from typing import Any

from django.http import StreamingHttpResponse
from django.urls import include, path

from tests.sites import frameworks, running
from tests.sites.frameworks import AIRISK, snippet
from tests.support.pages import module

frameworks.configure("rest_framework", "rest_framework.authtoken", snippet=snippet("EXCEPTION_HANDLER"))

from rest_framework.authtoken.models import Token  # noqa: E402 - after the set-up
from rest_framework.views import APIView  # noqa: E402

from airisk_oauth.chat import answer_response  # noqa: E402
from tests.sites import mission as people  # noqa: E402

views = module("mysite.views", snippet("class Conversations(APIView)"), snippet("@api_view()"))


class Ask(APIView):
    authentication_classes = views.Conversations.authentication_classes

    def get(self, request: Any) -> StreamingHttpResponse:
        return answer_response(request, "c-1", "Why?")


urlpatterns = [
    path("ask/", Ask.as_view()),
    path("airisk/", include("airisk_oauth.urls")),
    path("conversations/", views.Conversations.as_view()),
    path("agents/", views.agents),
]
PAGES = ["/conversations/", "/agents/"]


def get(page: str, person: people.Person | None = None, accept: str = "*/*") -> Any:
    token = f"Token {Token.objects.get_or_create(user=person.user)[0].key}" if person else ""
    return people.new_browser(authorization=token, accept=accept).get(page, secure=True)


def connected_user_is_answered() -> None:
    mia = people.new_connected_person(AIRISK, "mia", "user_42")
    for page in PAGES:
        assert get(page, mia).json() == [{"id": "1", "userID": "user_42"}]


def other_user_is_told_where_to_connect() -> None:
    max_ = people.new_person("max", "user_43")
    for page in PAGES:
        response = get(page, max_)
        assert response.status_code == 403
        assert response.json()["connect_url"] == "/airisk/connect/"


def unknown_client_has_to_sign_in() -> None:
    assert [get(page).status_code for page in PAGES] == [401, 401]


def outage_is_a_503() -> None:
    ada = people.new_connected_person(AIRISK, "ada", "ada", expires_in=-60)
    AIRISK.is_down = True
    response = get("/conversations/", ada)
    assert (response.status_code, response["Retry-After"]) == (503, "7"), people.why(response)


def answer_is_streamed() -> None:
    eva = people.new_connected_person(AIRISK, "eva", "user_44")
    events = b"".join(get("/ask/", eva))
    # Between comments, which keep the connection open.
    assert b'event: text\ndata: {"text": "Because."}\n\n' in events
    assert events.endswith(b'event: done\ndata: {"status": "completed"}\n\n')
    assert get("/ask/", eva, accept="text/event-stream").status_code == 406
    unconnected = b"".join(get("/ask/", people.new_person("kim", "user_45")))
    assert b"event: error" in unconnected
    assert b'"connect_url": "/airisk/connect/"' in unconnected


running.keep(
    answer_is_streamed,
    connected_user_is_answered,
    other_user_is_told_where_to_connect,
    unknown_client_has_to_sign_in,
    outage_is_a_503,
)
