"""A GraphQL API of strawberry."""

import json
from typing import Any

from django.urls import include, path

from tests.sites import frameworks, running
from tests.sites.frameworks import AIRISK, snippet
from tests.support.pages import module

frameworks.configure()

from strawberry.django.views import GraphQLView  # noqa: E402 - after the set-up

from tests.sites import mission as people  # noqa: E402

schema = module("mysite.schema", snippet("class AIRiskErrors")).schema
urlpatterns = [
    path("airisk/", include("airisk_oauth.urls")),
    path("graphql/", GraphQLView.as_view(schema=schema)),
]


def ask(person: people.Person, query: str = "{ conversations }") -> Any:
    person.browser.handler.enforce_csrf_checks = False
    response = person.browser.post(
        "/graphql/",
        {"query": query},
        content_type="application/json",
        headers={"accept": "application/json"},
        secure=True,
    )
    assert response.status_code == 200, people.why(response)
    return response.json()


def connected_user_is_answered() -> None:
    mia = people.new_connected_person(AIRISK, "mia", "user_42")
    assert ask(mia) == {"data": {"conversations": ["1"]}}


def other_user_is_told_where_to_connect() -> None:
    assert ask(people.new_person("max", "user_43")) == json.loads(snippet('"errors"'))


def outage_is_a_503() -> None:
    ada = people.new_connected_person(AIRISK, "ada", "ada", expires_in=-60)
    AIRISK.is_down = True
    [error] = ask(ada)["errors"]
    AIRISK.is_down = False
    assert error["extensions"]["status"] == 503


def other_errors_stay_as_they_are() -> None:
    [error] = ask(people.new_person("ben", "ben"), "{ nothing }")["errors"]
    assert "extensions" not in error


running.keep(
    connected_user_is_answered,
    other_user_is_told_where_to_connect,
    outage_is_a_503,
    other_errors_stay_as_they_are,
)
