"""What follows a 401 from AIRisk's API: a renewal, and the same call once more."""

import hashlib
import io
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import responses
from django.contrib.auth.models import User

from airisk_oauth import AIRiskSession
from airisk_oauth.exceptions import AIRiskError, AIRiskUnavailable, ConnectionRequired
from airisk_oauth.oauth.messages import Secret, TokenGrant
from airisk_oauth.sandbox.world import Caller, World
from airisk_oauth.tokens.outcomes import store
from tests.support.chat import FIRST_LINE, QUESTION
from tests.support.clock import set_clock
from tests.support.database import committing
from tests.support.people import api_statuses, give_token, stored, token_requests
from tests.support.tracebacks import shown_variables
from tests.support.wire import BASE_URL

pytestmark = pytest.mark.django_db


# Which 401 renews


def test_call_is_repeated_once_after_a_401(session: AIRiskSession, airisk: World) -> None:
    airisk.end_all_tokens()
    answer = session.get("/api/Answer")
    assert answer.status_code == 200
    assert api_statuses(airisk) == [401, 200]
    assert len(token_requests(airisk)) == 1
    # The first response is history: its cookies are kept, and its connection is released.
    [first] = answer.history
    assert first.raw.closed
    assert answer.json() == {"cookies": {"seen": "yes"}}
    assert session.cookies["seen"] == "yes"
    assert session.get("/api/Answer").json() == {"cookies": {"seen": "yes"}}
    assert len(token_requests(airisk)) == 1


def test_second_401_is_returned(api_client: Any, airisk: World) -> None:
    answer = api_client.get("/api/Answer", params={"status": 401})
    assert answer.status_code == 401
    assert api_statuses(airisk) == [401, 401]
    assert len(token_requests(airisk)) == 1


def reconnect(airisk: World, mia: User) -> None:
    token, _expires_at = airisk.new_token(Caller("client-1", "user_42"))
    store(mia.pk, "default", "user_42", TokenGrant(Secret(token), None))


@committing
def test_call_that_always_gets_401_renews_rarely(
    api_client: Any, airisk: World, mia: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It renews once a minute, however many sessions make it."""
    for seconds, renewals in ((0, 1), (1, 1), (40, 1), (62, 2), (63, 2)):
        set_clock(monkeypatch, seconds)
        with type(api_client).for_user(mia) as another:
            for each in (api_client, another):
                assert each.get("/api/Answer", params={"status": 401}).status_code == 401
                assert each.get("/api/Answer").status_code == 200
        assert len(token_requests(airisk)) == renewals
    assert Counter(api_statuses(airisk)) == {200: 10, 401: 10 + 2}


@committing
def test_new_token_is_tried_despite_earlier_401s(api_client: Any, airisk: World, mia: User) -> None:
    api_client.get("/api/Answer", params={"status": 401})
    airisk.end_all_tokens()
    assert api_client.get("/api/Answer").status_code == 401
    reconnect(airisk, mia)
    assert api_client.get("/api/Answer").status_code == 200
    # AIRisk may revoke this one, too, before it expires.
    airisk.end_all_tokens()
    assert api_client.get("/api/Answer").status_code == 200


def test_rejected_replacement_is_renewed_later(api_client: Any, airisk: World, mia: User) -> None:
    api_client.get("/api/Chat/ListAgents")
    reconnect(airisk, mia)
    airisk.end_all_tokens()
    assert [api_client.get("/api/Chat/ListAgents").status_code for _call in range(2)] == [401, 200]


def test_401_for_a_replaced_token_renews_nothing(api_client: Any, airisk: World, mia: User) -> None:
    api_client.get("/api/Chat/ListAgents")
    airisk.end_all_tokens()
    row = stored(mia)
    row.access_token, _expires_at = airisk.new_token(Caller("client-1", "user_42"))
    row.save()
    assert api_client.get("/api/Chat/ListAgents").status_code == 200
    assert api_statuses(airisk) == [200, 401, 200]
    assert not token_requests(airisk)


@pytest.mark.parametrize(("status", "expected"), [(503, AIRiskUnavailable), (401, ConnectionRequired)])
def test_error_of_the_renewal_shows_no_token(mia: User, status: int, expected: type[AIRiskError]) -> None:
    give_token(mia)
    with responses.RequestsMock() as wire, AIRiskSession.for_user(mia) as session:
        wire.get(f"{BASE_URL}/api/Chat/ListAgents", status=401)
        wire.get(f"{BASE_URL}/api/oauth2", status=status)
        with pytest.raises(expected) as raised:
            session.get("/api/Chat/ListAgents")
    assert "stored-token" not in shown_variables(raised.value)


# Which bodies are sent again


class Stream(io.BytesIO):
    """A stream that cannot be rewound; if it tells its position, only ``seek`` shows that."""

    def __init__(self, body: bytes, *, tells: bool) -> None:
        super().__init__(body)
        self.tells = tells

    def tell(self) -> int:
        if self.tells:
            return super().tell()
        raise io.UnsupportedOperation

    def seek(self, *args: Any) -> int:
        raise io.UnsupportedOperation


def halfway(body: bytes) -> io.BytesIO:
    stream = io.BytesIO(body)
    stream.seek(len(body) // 2)
    return stream


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"data": b""}, None),
        ({"data": "füße"}, "füße".encode()),
        ({"data": b"\x00\xff"}, b"\x00\xff"),
        ({"data": {"text": "a b&c"}}, b"text=a+b%26c"),
        ({"json": {"text": "ß"}}, None),
        ({"data": lambda: io.BytesIO(b"in a file")}, b"in a file"),
        ({"data": lambda: halfway(b"not this, this  ")}, b", this  "),
        ({"data": partial(Path(__file__).open, "rb")}, Path(__file__).read_bytes()),
        ({"data": {"a": "b"}, "files": {"file": ("name", b"in a file")}}, None),
    ],
)
def test_body_is_repeated_unchanged(
    session: AIRiskSession, airisk: World, given: dict[str, Any], expected: bytes | None
) -> None:
    airisk.end_all_tokens()
    given = {name: value() if callable(value) else value for name, value in given.items()}
    answer = session.post("/api/Echo", **given)
    assert answer.status_code == 200
    assert api_statuses(airisk) == [401, 200]
    body = (answer.request.body or b"") if expected is None else expected
    assert isinstance(body, bytes)
    assert answer.json()["sha256"] == hashlib.sha256(body).hexdigest()
    for value in given.values():
        if isinstance(value, io.IOBase):
            value.close()


@pytest.mark.parametrize(
    "make",
    [
        lambda: (part for part in [b"on", b"ce"]),
        lambda: Stream(b"once", tells=False),
        lambda: Stream(b"once", tells=True),
    ],
    ids=["generator", "unseekable file", "unrewindable file"],
)
def test_unrepeatable_body_is_sent_once(session: AIRiskSession, airisk: World, make: Callable[[], Any]) -> None:
    """The token is renewed all the same, so that the next call works."""
    airisk.end_all_tokens()
    answer = session.post("/api/Echo", data=make(), headers={"Content-Length": "4"})
    assert answer.status_code == 401
    assert api_statuses(airisk) == [401]
    answer = session.post("/api/Echo", data=make(), headers={"Content-Length": "4"})
    assert answer.json()["text"] == "once"
    assert len(token_requests(airisk)) == 1


def test_response_can_be_streamed_after_a_401(session: AIRiskSession, airisk: World) -> None:
    airisk.end_all_tokens()
    with session.post("/api/Chat/AskAgent", json=QUESTION, stream=True) as answer:
        assert answer.history[0].raw.closed
        assert not answer.raw.closed
        assert next(answer.iter_lines()) == FIRST_LINE.encode()
    assert api_statuses(airisk) == [401, 200]
