"""The asynchronous side: the same rules, and nothing that holds up the event loop."""

import asyncio
import hashlib
import importlib
import json
import pickle
import re
import sys
import threading
import types
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2
import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.db import connection
from django.test import AsyncRequestFactory
from django.test.utils import CaptureQueriesContext

from airisk_oauth import AIRiskSession, AsyncAIRiskClient
from airisk_oauth.exceptions import AIRiskInvalidResponse, AIRiskUnavailable
from airisk_oauth.models import AIRiskToken
from airisk_oauth.oauth.deployment import Deployment
from airisk_oauth.oauth.messages import TokenGrant
from airisk_oauth.sandbox.world import World
from airisk_oauth.tokens.renewal import Renewal
from airisk_oauth.tokens.waiting import Blocking
from tests.support import pages
from tests.support.browsing import at_each_request
from tests.support.chat import FIRST_LINE, QUESTION
from tests.support.clock import wait_until
from tests.support.database import committing
from tests.support.options import set_option
from tests.support.people import api_statuses, give_token, live_token, stored, stored_token, token_requests
from tests.support.threads import attempt
from tests.support.tracebacks import shown_variables

pytestmark = [pytest.mark.django_db, pytest.mark.urls("tests.test_sessions")]


def using(user: User | None, use: Callable[[AsyncAIRiskClient], Coroutine[Any, Any, Any]]) -> Any:
    """Give somebody's client to this coroutine, on an event loop, and return what it returns."""

    @async_to_sync
    async def main() -> Any:
        make = AsyncAIRiskClient.for_application() if user is None else AsyncAIRiskClient.for_user(user)
        async with make as client:
            return await use(client)

    return main()


def calls_at_once(number: int) -> Callable[[AsyncAIRiskClient], Coroutine[Any, Any, list[int]]]:
    async def use(client: AsyncAIRiskClient) -> list[int]:
        answers = await asyncio.gather(*(client.get("/api/Echo") for _call in range(number)))
        return [answer.status_code for answer in answers]

    return use


# One copy of the rules


@committing
def test_both_sides_share_one_renewal(airisk: World, mia: User) -> None:
    give_token(mia, ends_in=-60)
    airisk.switches.latency = 0.1

    def synchronous() -> list[int]:
        with AIRiskSession.for_user(mia) as session:
            return [session.get("/api/Chat/ListAgents").status_code]

    def asynchronous() -> list[int]:
        found: list[int] = using(mia, calls_at_once(10))
        return found

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(attempt, [synchronous, asynchronous] * 2))
    assert found == [[200], [200] * 10] * 2
    assert len(token_requests(airisk)) == 1


def test_the_applications_first_token_takes_one_request_for_forty_calls_at_once(airisk: World) -> None:
    assert using(None, calls_at_once(40)) == [200] * 40
    assert len(token_requests(airisk)) == 1


@pytest.mark.parametrize(("ends_in", "path"), [(-60, "/api/oauth2"), (3600, "/api/Chat/ListAgents")])
def test_a_cancelled_call_gives_the_lease_up_keeps_the_token_and_shows_nothing(
    airisk: World, mia: User, settings: Any, ends_in: float, path: str
) -> None:
    """In the middle of a renewal, or of the call itself."""
    set_option(settings, CLIENT_SECRET="canary-secret")
    give_token(mia, ends_in=ends_in)
    airisk.switches.latency = 0.5
    caught: list[BaseException] = []

    async def use(client: AsyncAIRiskClient) -> None:
        async def call() -> None:
            try:
                await client.get("/api/Chat/ListAgents")
            except asyncio.CancelledError as error:
                caught.append(error)

        loop = asyncio.get_running_loop()
        began = asyncio.Event()
        with at_each_request(path, lambda: loop.call_soon_threadsafe(began.set)):
            task = asyncio.ensure_future(call())
            await asyncio.wait_for(began.wait(), 60)
            task.cancel()
            await task

    using(mia, use)
    [error] = caught
    assert stored(mia).lease is None
    assert stored(mia).access_token == "stored-token"
    assert "canary" not in shown_variables(error)
    assert "stored-token" not in shown_variables(error)
    wait_until(lambda: airisk.journal)


@committing
@pytest.mark.parametrize("during", ["the claim", "the save"])
def test_a_call_cancelled_while_the_database_works_leaves_no_lease_and_loses_no_token(
    airisk: World, mia: User, during: str
) -> None:
    give_token(mia, ends_in=-60)
    began, cancelled = threading.Event(), threading.Event()

    def slowly(execute: Any, sql: str, *args: Any) -> Any:
        changed = sql.partition("WHERE")[0]
        if "lease" in changed and changed.startswith("UPDATE") and ("sealed" in changed) == (during == "the save"):
            began.set()
            assert cancelled.wait(60)
        return execute(sql, *args)

    async def use(client: AsyncAIRiskClient) -> None:
        task = asyncio.ensure_future(client.get("/api/Chat/ListAgents"))
        assert await asyncio.to_thread(began.wait, 60)
        task.cancel()
        cancelled.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    with connection.execute_wrapper(slowly):
        using(mia, use)
    assert stored(mia).lease is None
    assert (stored(mia).access_token == "stored-token") is (during == "the claim")
    assert len(token_requests(airisk)) == (during == "the save")


@types.coroutine
def suspend() -> Iterator[None]:
    yield


class Suspended(Blocking):
    """Waits for AIRisk and is never resumed, as when an event loop is closed."""

    async def obtain(self, deployment: Deployment, userid: str | None) -> TokenGrant:
        await suspend()
        raise AssertionError


def test_abandoned_rule_leaves_its_lease_to_expire(mia: User) -> None:
    give_token(mia, ends_in=-60)
    rule = Renewal(stored_token(mia), Suspended()).credential()
    rule.send(None)
    rule.close()
    assert stored(mia).lease_until is not None


# Nothing holds up the loop


@asynccontextmanager
async def airisk_on_this_loop(settings: Any) -> AsyncIterator[list[str]]:
    """AIRisk served by the very loop that calls it, which waits for ever for an answer if it is held up.

    What is posted to it leads on to a call that only a renewed token may make. One redirect breaks off.
    """
    seen: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        address = urlsplit(head.split(" ")[1])
        call = f"{head.split(' ')[0]} {address.path}"
        query = parse_qs(address.query)
        seen.append(call)
        status, body = "200 OK", b"[]"
        if call == "GET /api/oauth2":
            back = urlencode({"code": "code", "state": query["state"][0]})
            status = f"302 Found\r\nLocation: {query['redirect_uri'][0]}?{back}"
        elif call == "POST /api/oauth2/Token":
            body = json.dumps({"access_token": "renewed", "expires_in": 3600}).encode()
        elif call == "POST /api/Act":
            status = "303 See Other\r\nLocation: /api/Chat/ListAgents"
        elif call == "POST /api/ActThere":
            status = "307 Temporary Redirect\r\nLocation: /api/Chat/ListAgents"
        elif call == "GET /api/CutShort":
            status, body = "302 Found\r\nLocation: /api/Chat/ListAgents\r\nContent-Length: 99", b""
        elif "Bearer renewed" not in head:
            status = "401 Unauthorized"
        length = "" if "Content-Length" in status else f"Content-Length: {len(body)}\r\n"
        writer.write(f"HTTP/1.1 {status}\r\nConnection: close\r\n{length}\r\n".encode() + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        set_option(settings, BASE_URL=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        yield seen


def on_this_loop(settings: Any, user: User, use: Callable[[AsyncAIRiskClient], Coroutine[Any, Any, Any]]) -> Any:
    """Return what this coroutine makes of a client, and what AIRisk saw."""
    # As a token from before its origin was noted: AIRisk's address here is known too late.
    AIRiskToken.objects.update(origin="")

    @async_to_sync
    async def main() -> Any:
        async with airisk_on_this_loop(settings) as seen, AsyncAIRiskClient.for_user(user) as client:
            return await use(client), seen

    return main()


@pytest.mark.parametrize("ends_in", [3600, -60])
def test_calls_and_renewals_leave_the_loop_free(settings: Any, mia: User, ends_in: float) -> None:
    """A query on the loop itself would be an error of Django's."""
    give_token(mia, ends_in=ends_in)
    found, seen = on_this_loop(settings, mia, calls_at_once(3))
    assert found == [200] * 3
    assert seen.count("POST /api/oauth2/Token") == 1


# What comes back


@pytest.mark.parametrize("follows", [False, True])
def test_a_redirect_is_followed_where_that_is_asked_for(airisk: World, mia: User, follows: bool) -> None:
    live_token(airisk, mia)
    params = {"status": "303", "to": "/sandbox/api/Chat/ListAgents"}
    answer = using(mia, lambda client: client.get("/api/Answer", params=params, follow_redirects=follows))
    assert [each.status_code for each in [*answer.history, answer]] == ([303, 200] if follows else [303])
    assert api_statuses(airisk) == ([303, 200] if follows else [303])


def test_a_401_on_the_way_of_a_redirect_repeats_no_more_than_the_call_that_got_it(settings: Any, mia: User) -> None:
    give_token(mia)
    answer, seen = on_this_loop(settings, mia, lambda client: client.post("/api/Act", follow_redirects=True))
    assert answer.status_code == 200
    renewal = ["GET /api/oauth2", "POST /api/oauth2/Token"]
    assert seen == ["POST /api/Act", "GET /api/Chat/ListAgents", *renewal, "GET /api/Chat/ListAgents"]


def test_a_redirect_that_would_need_a_stream_again_is_handed_back(settings: Any, mia: User) -> None:
    give_token(mia)

    async def parts() -> AsyncIterator[bytes]:
        yield b"once"

    answer, seen = on_this_loop(
        settings, mia, lambda client: client.post("/api/ActThere", content=parts(), follow_redirects=True)
    )
    assert answer.status_code == 307
    assert seen == ["POST /api/ActThere"]


def test_a_redirect_that_breaks_off_is_unavailable(settings: Any, mia: User) -> None:
    give_token(mia)

    async def use(client: AsyncAIRiskClient) -> None:
        async with client.stream("GET", "/api/CutShort", follow_redirects=True):
            pass

    with pytest.raises(AIRiskUnavailable):
        on_this_loop(settings, mia, use)


def test_redirects_without_end_are_an_invalid_response(airisk: World, mia: User) -> None:
    live_token(airisk, mia)
    to = "/sandbox/api/Answer?status=302&to=/sandbox/api/Answer%3Fstatus=302%26to=/sandbox/api/Chat/ListAgents"

    async def use(client: AsyncAIRiskClient) -> None:
        client.max_redirects = 2
        await client.get("/api/Answer", params={"status": "302", "to": to}, follow_redirects=True)

    with pytest.raises(AIRiskInvalidResponse):
        using(mia, use)


@pytest.mark.parametrize(
    ("given", "body"),
    [
        ({"content": "füße"}, "füße".encode()),
        ({"content": b"\x00\xff"}, b"\x00\xff"),
        ({"data": {"text": "a b&c"}}, b"text=a+b%26c"),
        ({"json": {"text": 1}}, b'{"text":1}'),
    ],
)
def test_a_body_is_sent_again_intact(airisk: World, mia: User, given: dict[str, Any], body: bytes) -> None:
    live_token(airisk, mia)
    airisk.end_all_tokens()
    answer = using(mia, lambda client: client.post("/api/Echo", **given))
    assert answer.json()["sha256"] == hashlib.sha256(body).hexdigest()
    assert api_statuses(airisk) == [401, 200]


def test_a_stream_is_not_sent_again_and_the_next_call_works(airisk: World, mia: User) -> None:
    live_token(airisk, mia)
    airisk.end_all_tokens()

    async def parts() -> AsyncIterator[bytes]:
        yield b"once"

    async def use(client: AsyncAIRiskClient) -> list[int]:
        headers = {"Content-Length": "4"}
        answers = [await client.post("/api/Echo", content=parts(), headers=headers) for _call in range(2)]
        return [answer.status_code for answer in answers]

    assert using(mia, use) == [401, 200]
    assert api_statuses(airisk) == [401, 200]


def test_an_answer_can_be_streamed_after_a_401(airisk: World, mia: User) -> None:
    live_token(airisk, mia)
    airisk.end_all_tokens()

    async def use(client: AsyncAIRiskClient) -> str:
        async with client.stream("POST", "/api/Chat/AskAgent", json=QUESTION) as answer:
            return await anext(answer.aiter_lines())

    assert using(mia, use) == FIRST_LINE
    assert api_statuses(airisk) == [401, 200]


def test_calls_have_the_deployments_timeout(airisk: World, mia: User, settings: Any) -> None:
    live_token(airisk, mia)
    set_option(settings, API_TIMEOUT=(5, 0.1))
    given_up = threading.Event()
    with at_each_request("/api/Chat/ListAgents", given_up.wait), pytest.raises(AIRiskUnavailable) as caught:
        using(mia, lambda client: client.get("/api/Chat/ListAgents"))
    given_up.set()
    assert caught.value.__context__ is None
    assert AsyncAIRiskClient.for_user(mia).timeout == httpx2.Timeout(0.1, connect=5)
    wait_until(lambda: airisk.journal)


# Making one


def test_making_one_does_no_io_and_a_warm_call_reads_no_database(airisk: World, mia: User) -> None:
    live_token(airisk, mia)

    async def call_warm(client: AsyncAIRiskClient) -> None:
        for _call in range(3):
            assert (await client.get("/api/Chat/ListAgents")).status_code == 200

    with CaptureQueriesContext(connection) as first:
        using(mia, lambda client: client.get("/api/Chat/ListAgents"))
    with CaptureQueriesContext(connection) as warm:
        using(mia, call_warm)
    assert len(warm) == len(first)
    with CaptureQueriesContext(connection) as none:
        AsyncAIRiskClient.for_user(mia)
        AsyncAIRiskClient.for_application()
    assert not none
    assert api_statuses(airisk) == [200] * 4


def test_one_is_not_pickled(mia: User) -> None:
    with pytest.raises(TypeError, match="AIRisk"):
        pickle.dumps(AsyncAIRiskClient.for_user(mia))


def test_without_httpx2_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx2", None)
    for module in ("airisk_oauth.wire.async_environment", "airisk_oauth.oauth.async_transport"):
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(ImportError, match=re.escape("pip install 'django-airisk-oauth[async]'")):
        importlib.import_module("airisk_oauth.oauth.async_transport")


# The page


def test_what_the_page_shows_works(airisk: World, mia: User) -> None:
    live_token(airisk, mia)
    given: dict[str, Any] = {}
    for words in ("def conversations", "def agents_and_conversations"):
        exec(pages.snippet("docs/async.md", words), given)  # noqa: S102 - the page's own
    request: Any = AsyncRequestFactory().get("/")
    request.user, request.airisk = mia, AIRiskSession.for_user(mia)

    @async_to_sync
    async def main() -> Any:
        view = await given["conversations"](request)
        await request.airisk.aclose()
        return json.loads(view.content), await given["agents_and_conversations"](mia)

    conversations, (agents, mine) = main()
    assert conversations == mine
    assert len(agents) > 1
