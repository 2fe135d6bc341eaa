"""The sandbox with two clients, called as a browser, a site and an API client would call it."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse

from airisk_oauth.sandbox.chat import Chats
from airisk_oauth.sandbox.world import world

if TYPE_CHECKING:
    from pytest_django import Settings

CALLBACK: Final = "https://app.example.com/airisk/callback/"
OTHER_CALLBACK: Final = "https://app.example.com/elsewhere/"
NOON: Final = datetime(2025, 3, 31, 12, tzinfo=UTC).timestamp()
#: The first conversation of user_42, whose id is always the same.
CONVERSATION: Final = Chats("user_42", NOON).conversations(str)[0]["id"]
_WITH_ID: Final = {"get_conversation", "add_file"}
POST: Final = {"consent", "token", "create_conversation", "ask_agent", "add_file", "submit_feedback"}
API: Final = ["get_conversations", "list_agents", "list_conversations", *sorted(_WITH_ID | POST - {"consent", "token"})]
ENDPOINTS: Final = ["authorize", "consent", "token", "error", *API]


@pytest.fixture
def two_clients(settings: "Settings") -> Iterator[None]:
    """Reset the sandbox, and give it two clients."""
    settings.AIRISK_OAUTH_SANDBOX = True
    settings.AIRISK_OAUTH_SANDBOX_CLIENTS = {
        "client-1": {"client_secret": "secret-1", "redirect_uris": f"{CALLBACK}, {OTHER_CALLBACK}"},
        "client-2": {"client_secret": "secret-2", "redirect_uris": CALLBACK},
    }
    settings.AIRISK_OAUTH_SANDBOX_USERS = None
    world.reset()
    yield
    world.reset()


def address(name: str) -> str:
    return reverse(f"airisk_sandbox:{name}", args=[CONVERSATION] if name in _WITH_ID else [])


def call(client: Client, name: str, data: Any = None, *, token: str | None = None, **extra: Any) -> Any:
    """Call an endpoint by the name of its URL, with the right method."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    send = client.post if name in POST else client.get
    return send(address(name), {} if data is None else data, headers=headers, **extra)


def call_validly(client: Client, name: str, token: str) -> Any:
    """Call an endpoint of the API with valid parameters."""
    chats = world.chats_of("user_42")
    found = chats.find(CONVERSATION, str)
    assert found is not None
    if name == "submit_feedback":
        given = {"conversationId": CONVERSATION, "messageId": found["messages"][0]["id"], "feedback": "Like"}
        return call(client, name, token=token, query_params=given)
    data: dict[str, Any] = {
        "create_conversation": {"title": "A plan", "agentId": found["botID"]},
        "ask_agent": {"conversationID": CONVERSATION, "text": "Hello"},
        "add_file": {"plan.txt": SimpleUploadedFile("plan.txt", b"A plan")},
    }
    return call(client, name, data.get(name), token=token)


def authorize(client: Client, **changes: str | None) -> Any:
    """Send a valid authorization request with some parameters changed; None leaves one out."""
    given = {"client_id": "client-1", "redirect_uri": CALLBACK, "state": "s", "userid": "user_42", **changes}
    return call(client, "authorize", {name: value for name, value in given.items() if value is not None})


def redirected(response: Any) -> dict[str, str]:
    """Return the query with which the browser is redirected back to the application."""
    assert response.status_code == 302
    target, _, query = response["Location"].partition("?")
    assert target == CALLBACK
    return dict(parse_qsl(query, keep_blank_values=True, strict_parsing=True))


def new_code(client: Client, userid: str | None = "user_42") -> str:
    return redirected(authorize(client, userid=userid))["code"]


def token_fields(code: str, userid: str | None = "user_42", /, **changes: str | None) -> dict[str, str]:
    """Return the fields of a valid token request with some of them changed; None leaves one out."""
    given = {"client_id": "client-1", "client_secret": "secret-1", "redirect_uri": CALLBACK, "code": code}
    changed = {**given, "userid": userid, **changes}
    return {name: value for name, value in changed.items() if value is not None}


def obtain(client: Client, userid: str | None = "user_42") -> dict[str, Any]:
    """Return the answer to a valid token request for a new code."""
    answer: dict[str, Any] = call(client, "token", token_fields(new_code(client, userid), userid)).json()
    return answer


def redeem(code: str) -> Any:
    return call(Client(), "token", token_fields(code))


def assert_plain(response: Any, text: str) -> None:
    assert (response.status_code, response.content.decode()) == (400, text)
    assert response["Content-Type"] == "text/plain; charset=utf-8"


def assert_problem(response: Any, status: int, title: str, section: str) -> str:
    assert response["Content-Type"] == "application/problem+json; charset=utf-8"
    content = response.json()
    trace_id = content.pop("traceId")
    kind = f"https://tools.ietf.org/html/rfc9110#section-{section}"
    assert (response.status_code, content) == (status, {"type": kind, "title": title, "status": status})
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-00", trace_id)
    return str(trace_id)


def assert_unauthorized(response: Any) -> str:
    return assert_problem(response, 401, "Unauthorized", "15.5.2")
