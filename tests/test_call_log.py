"""The log of calls, for audits: who called what, and that it costs nothing while it is off."""

import asyncio
import logging
import sys
import tracemalloc
from collections.abc import Callable
from itertools import repeat
from typing import Any

import pytest
import requests
from asgiref.sync import async_to_sync
from django.contrib.auth.models import AnonymousUser, User
from django.test import AsyncRequestFactory, RequestFactory
from django.utils.functional import SimpleLazyObject

from airisk_oauth import AIRiskAuth, AIRiskSession, AsyncAIRiskClient, conf
from airisk_oauth.chat import answer_response
from airisk_oauth.client import bearer, call_log
from airisk_oauth.exceptions import AIRiskError, AIRiskUnavailable, ConnectionRequired
from airisk_oauth.models import AIRiskToken
from airisk_oauth.sandbox.world import World
from tests.support.api_clients import with_each_client
from tests.support.chat import QUESTION
from tests.support.chats import CHUNKED, ChatAt, Side, chunk, new_stream
from tests.support.options import set_option
from tests.support.people import give_token, live_token
from tests.support.wire import saying

pytestmark = pytest.mark.django_db
NOBODY = "http://127.0.0.1:9"
AGENTS = "/sandbox/api/Chat/ListAgents"


class Calls:
    """The lines of the log."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    @property
    def records(self) -> list[Any]:
        return [record for record in self._caplog.records if record.name == "airisk_oauth.calls"]

    @property
    def fields(self) -> list[tuple[Any, ...]]:
        names = ("user_id", "method", "path", "airisk_status", "token_renewed", "error")
        return [tuple(getattr(record, name) for name in names) for record in self.records]


def error_of(call: Callable[[], object]) -> AIRiskError:
    with pytest.raises(AIRiskError) as raised:
        call()
    return raised.value


@pytest.fixture
def calls(caplog: pytest.LogCaptureFixture) -> Calls:
    caplog.set_level(logging.INFO, logger="airisk_oauth.calls")
    return Calls(caplog)


def test_each_call_is_one_line_without_its_query(api_client: Any, mia: User, calls: Calls) -> None:
    api_client.get("/api/Chat/GetConversations", params={"results": "50", "secret": "canary"})
    api_client.get("/api/Answer?status=503&text=canary")
    assert calls.fields == [
        (mia.pk, "GET", "/sandbox/api/Chat/GetConversations", 200, False, None),
        (mia.pk, "GET", "/sandbox/api/Answer", 503, False, None),
    ]
    [record, _other] = calls.records
    assert (record.event, record.levelname, record.deployment) == ("call.finished", "INFO", "default")
    assert 0 < record.duration < 60
    assert record.getMessage().startswith(f"GET {calls.fields[0][2]} on default, called by user {mia.pk}, got status")
    assert "canary" not in repr([each.__dict__ for each in calls.records])
    assert "stored-token" not in repr([each.__dict__ for each in calls.records])


@with_each_client
def test_call_of_the_application_is_logged(airisk: World, calls: Calls, client_class: Any) -> None:
    with client_class.for_application() as client:
        client.get("/api/Answer")
    assert calls.fields == [(None, "GET", "/sandbox/api/Answer", 200, True, None)]
    assert "called by the application" in calls.records[0].getMessage()


@with_each_client
def test_call_says_if_its_token_was_renewed(airisk: World, mia: User, calls: Calls, client_class: Any) -> None:
    give_token(mia, ends_in=-60)
    with client_class.for_user(mia) as client:
        client.get("/api/Chat/ListAgents")
        client.get("/api/Chat/ListAgents")
        airisk.end_all_tokens()
        client.get("/api/Chat/ListAgents")
    assert calls.fields == [(mia.pk, "GET", AGENTS, 200, renewed, None) for renewed in (True, False, True)]


def test_redirected_call_is_one_line(api_client: Any, mia: User, calls: Calls) -> None:
    assert api_client.get("/api/Answer", params={"status": 303, "to": AGENTS}).status_code == 200
    assert calls.fields == [(mia.pk, "GET", "/sandbox/api/Answer", 200, False, None)]


@with_each_client
def test_failed_calls_are_logged_with_the_error(
    airisk: World, mia: User, settings: Any, calls: Calls, client_class: Any
) -> None:
    with client_class.for_user(mia) as client:
        assert isinstance(error_of(lambda: client.get("/api/Chat/ListAgents")), ConnectionRequired)
    live_token(airisk, mia)
    set_option(settings, BASE_URL=NOBODY)
    AIRiskToken.objects.update(origin="")
    with client_class.for_user(mia) as client:
        assert isinstance(error_of(lambda: client.get("/api/Chat/ListAgents")), AIRiskUnavailable)
    assert calls.fields == [
        (mia.pk, "GET", AGENTS, None, False, "ConnectionRequired"),
        (mia.pk, "GET", "/api/Chat/ListAgents", None, False, "AIRiskUnavailable"),
    ]
    assert "failed (AIRiskUnavailable) after" in calls.records[1].getMessage()


@with_each_client
def test_nobody_is_not_logged(airisk: World, calls: Calls, client_class: Any) -> None:
    """Nothing was called, and it was not the application."""
    with client_class.for_user(AnonymousUser()) as client, pytest.raises(ConnectionRequired):
        client.get("/api/Chat/ListAgents")
    assert calls.records == []


def test_lazy_user_is_not_looked_up_for_the_log(mia: User) -> None:
    """A call may be cancelled before anybody has, and an event loop must not use the database."""
    lazy = SimpleLazyObject(lambda: mia)
    policy = bearer.BearerPolicy(conf.deployment(), lazy)
    assert call_log.user_id_of(policy) is None
    assert lazy.pk == mia.pk
    assert call_log.user_id_of(policy) == mia.pk


def test_cancelled_call_is_logged(airisk: World, mia: User, calls: Calls) -> None:
    live_token(airisk, mia)
    airisk.switches.latency = 30

    async def call() -> None:
        async with AsyncAIRiskClient.for_user(mia) as client:
            await asyncio.wait_for(client.get("/api/Chat/ListAgents"), 2)

    with pytest.raises(TimeoutError):
        async_to_sync(call)()
    assert calls.fields == [(mia.pk, "GET", AGENTS, None, False, "CancelledError")]


def test_request_that_is_sent_twice_is_two_calls(airisk: World, mia: User, calls: Calls) -> None:
    live_token(airisk, mia)
    with AIRiskSession.for_user(mia) as session:
        prepared = session.prepare_request(requests.Request("GET", "/api/Chat/ListAgents"))
        session.send(prepared)
        session.send(prepared)
    assert calls.fields == [(mia.pk, "GET", AGENTS, 200, False, None)] * 2


def test_session_of_your_own_logs_responses(airisk: World, mia: User, settings: Any, calls: Calls) -> None:
    url = f"{settings.AIRISK_OAUTH['default']['BASE_URL']}/api/Chat/ListAgents"
    auth = AIRiskAuth.for_user(mia)
    assert isinstance(error_of(lambda: requests.get(url, auth=auth, timeout=10)), ConnectionRequired)
    live_token(airisk, mia)
    requests.get(url, auth=auth, timeout=10)
    airisk.end_all_tokens()
    airisk.switches.refuse = True
    assert isinstance(error_of(lambda: requests.get(url, auth=auth, timeout=10)), AIRiskError)
    assert calls.fields == [
        (mia.pk, "GET", AGENTS, None, False, "ConnectionRequired"),
        (mia.pk, "GET", AGENTS, 200, False, None),
        (mia.pk, "GET", AGENTS, None, False, "ConnectionRequired"),
    ]


def test_other_credentials_are_not_logged(api_client: Any, calls: Calls) -> None:
    """Whose they are is not known."""
    api_client.get("/api/Chat/ListAgents", auth=("mia", "canary"))
    assert calls.records == []


# Chat


def test_chat_call_is_logged_when_it_is_read(chat: Side, mia: User, calls: Calls) -> None:
    chat.agents()
    assert calls.fields == [(mia.pk, "GET", AGENTS, 200, False, None)]


def test_answer_is_logged_at_its_end(chat_at: ChatAt, mia: User, calls: Calls) -> None:
    stream = new_stream("One. ", "Two.").splitlines(keepends=True)
    with_chat = chat_at(saying(CHUNKED, *(chunk(line) for line in stream), chunk(b"")))
    assert with_chat.side.take().status == "completed"
    assert calls.fields == [(mia.pk, "POST", "/api/Chat/AskAgent", 200, False, None)]


def test_answer_that_breaks_off_is_a_failure(chat_at: ChatAt, mia: User, calls: Calls) -> None:
    side = chat_at(saying(CHUNKED, chunk(new_stream("One. ", end="")))).side
    assert isinstance(side.take().error, AIRiskUnavailable)
    assert calls.fields == [(mia.pk, "POST", "/api/Chat/AskAgent", 200, False, "AIRiskUnavailable")]


def test_answer_that_is_stopped_is_logged_then(chat: Side, mia: User, calls: Calls) -> None:
    assert chat.take(1, to=QUESTION["conversationID"]).pieces
    assert calls.fields == [(mia.pk, "POST", "/sandbox/api/Chat/AskAgent", 200, False, None)]


def test_question_without_a_connection_is_logged(airisk: World, mia: User, side_kind: Any, calls: Calls) -> None:
    side = side_kind(mia)
    assert isinstance(side.take().error, ConnectionRequired)
    side.close()
    assert calls.fields == [(mia.pk, "POST", "/sandbox/api/Chat/AskAgent", None, False, "ConnectionRequired")]


def test_question_without_an_answer_is_logged(mia: User, settings: Any, side_kind: Any, calls: Calls) -> None:
    set_option(settings, BASE_URL=NOBODY)
    give_token(mia)
    side = side_kind(mia)
    assert isinstance(side.take().error, AIRiskUnavailable)
    side.close()
    assert calls.fields == [(mia.pk, "POST", "/api/Chat/AskAgent", None, False, "AIRiskUnavailable")]


def relayed_on_wsgi(user: User) -> None:
    request: Any = RequestFactory().get("/")
    request.user, request.airisk = user, AIRiskSession.for_user(user)
    b"".join(answer_response(request, QUESTION["conversationID"], "Why?"))


def relayed_on_asgi(user: User) -> None:
    request: Any = AsyncRequestFactory().get("/")
    request.user, request.airisk = user, AIRiskSession.for_user(user)

    async def send() -> None:
        async for _part in answer_response(request, QUESTION["conversationID"], "Why?"):
            pass

    async_to_sync(send)()


@pytest.mark.parametrize("relay", [relayed_on_wsgi, relayed_on_asgi])
def test_relayed_answer_is_logged(
    airisk: World, mia: User, settings: Any, calls: Calls, relay: Callable[[User], None]
) -> None:
    live_token(airisk, mia)
    relay(mia)
    set_option(settings, BASE_URL=NOBODY)
    AIRiskToken.objects.update(origin="")
    relay(mia)
    assert calls.fields == [
        (mia.pk, "POST", "/sandbox/api/Chat/AskAgent", 200, False, None),
        (mia.pk, "POST", "/api/Chat/AskAgent", None, False, "AIRiskUnavailable"),
    ]


# Off


def test_inherited_level_does_not_switch_it_on(api_client: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Sites with everything at INFO would get a line for each call."""
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="airisk_oauth")
    api_client.get("/api/Chat/ListAgents")
    assert Calls(caplog).records == []


def test_higher_level_switches_it_off(api_client: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="airisk_oauth.calls")
    api_client.get("/api/Chat/ListAgents")
    assert Calls(caplog).records == []


def allocated_by(work: Callable[[], object]) -> int:
    """Return the most bytes that were allocated at a time while this was done 1000 times."""
    tracer = sys.gettrace()
    # Measuring coverage allocates memory, too.
    sys.settrace(None)
    tracemalloc.start()
    try:
        before, _peak = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for _again in repeat(None, 1000):
            work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
        sys.settrace(tracer)


def test_log_that_is_off_allocates_nothing(mia: User) -> None:
    policy = bearer.BearerPolicy(conf.deployment(), mia)
    request = requests.Request("GET", NOBODY).prepare()

    def call() -> None:
        with call_log.begin(policy, request) as begun, call_log.call_of(request):
            begun.note_status(200)

    call()
    # Other threads may allocate something meanwhile, but not each time.
    assert min(allocated_by(call) for _round in range(5)) < 1000, "Less than a byte for each call."
    assert call_log.begin(policy, request) is call_log.UNLOGGED
