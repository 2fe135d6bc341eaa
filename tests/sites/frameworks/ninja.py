"""An API of django-ninja, whose clients sign in by a token; on a developer's machine."""

from typing import Any

from django.core import signing
from django.http import StreamingHttpResponse
from django.urls import include, path

from tests.sites import frameworks, running
from tests.sites.frameworks import AIRISK, snippet
from tests.support.pages import module

frameworks.configure("ninja", DEBUG=True)

from airisk_oauth.chat import answer_response  # noqa: E402
from tests.sites import mission as people  # noqa: E402 - after the set-up

api = module("mysite.api", snippet("add_exception_handlers")).api


@api.get("/ask")
def ask(request: Any) -> StreamingHttpResponse:
    return answer_response(request, "c-1", "Why?")


urlpatterns = [
    path("airisk/", include("airisk_oauth.urls")),
    path("api/", api.urls),
]
PAGES = ["/api/conversations", "/api/agents"]


def get(page: str, person: people.Person | None = None) -> Any:
    token = f"Bearer {signing.dumps(person.user.pk, salt='api')}" if person else "Bearer forged"
    return people.new_browser(authorization=token, accept="*/*").get(page, secure=True)


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
    gone = people.new_person("gone", "gone", is_active=False)
    assert [get(page, gone).status_code for page in PAGES] == [401, 401]


def outage_is_a_503() -> None:
    ada = people.new_connected_person(AIRISK, "ada", "ada", expires_in=-60)
    AIRISK.is_down = True
    response = get("/api/conversations", ada)
    assert (response.status_code, response["Retry-After"]) == (503, "7"), people.why(response)


def answer_is_streamed() -> None:
    eva = people.new_connected_person(AIRISK, "eva", "user_44")
    events = b"".join(get("/api/ask", eva))
    # Between comments, which keep the connection open.
    assert b'event: text\ndata: {"text": "Because."}\n\n' in events
    assert events.endswith(b'event: done\ndata: {"status": "completed"}\n\n')
    unconnected = b"".join(get("/api/ask", people.new_person("kim", "user_45")))
    assert b"event: error" in unconnected
    assert b'"connect_url": "/airisk/connect/"' in unconnected


running.keep(
    answer_is_streamed,
    connected_user_is_answered,
    other_user_is_told_where_to_connect,
    unknown_client_has_to_sign_in,
    outage_is_a_503,
)
