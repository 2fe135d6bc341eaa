"""The asynchronous client: the same rules as a session, and nothing that blocks the event loop."""

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

pytestmark = pytest.mark.django_db


def using(user: User | None, use: Callable[[AsyncAIRiskClient], Coroutine[Any, Any, Any]]) -> Any:
    """Return what this coroutine makes of a client for this user, or for the application."""

    @async_to_sync
    async def main() -> Any:
        made = AsyncAIRiskClient.for_application() if user is None else AsyncAIRiskClient.for_user(user)
        async with made as client:
            return await use(client)

    return main()


def calls_at_once(number: int) -> Callable[[AsyncAIRiskClient], Coroutine[Any, Any, list[int]]]:
    async def use(client: AsyncAIRiskClient) -> list[int]:
        answers = await asyncio.gather(*(client.get("/api/Echo") for _call in range(number)))
        return [answer.status_code for answer in answers]

    return use


# Renewals


@committing
def test_sessions_and_clients_share_one_renewal(airisk: World, mia: User) -> None:
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


def test_forty_calls_share_the_first_token(airisk: World) -> None:
    assert using(None, calls_at_once(40)) == [200] * 40
    assert len(token_requests(airisk)) == 1


@pytest.mark.parametrize(("ends_in", "path"), [(-60, "/api/oauth2"), (3600, "/api/Chat/ListAgents")])
def test_cancelled_call_releases_its_lease(airisk: World, mia: User, settings: Any, ends_in: float, path: str) -> None:
    """Cancelled during a renewal or during the call itself, it also keeps the token and shows no secret."""
    set_option(settings, CLIENT_SECRET="canary-secret")
    give_token(mia, ends_in=ends_in)
    airisk.switches.latency = 0.5
    cancelled: list[BaseException] = []

    async def use(client: AsyncAIRiskClient) -> None:
        async def call() -> None:
            try:
                await client.get("/api/Chat/ListAgents")
            except asyncio.CancelledError as error:
                cancelled.append(error)

        loop = asyncio.get_running_loop()
        began = asyncio.Event()
        with at_each_request(path, lambda: loop.call_soon_threadsafe(began.set)):
            task = asyncio.ensure_future(call())
            await asyncio.wait_for(began.wait(), 60)
            task.cancel()
            await task

    using(mia, use)
    [error] = cancelled
    assert stored(mia).lease is None
    assert stored(mia).access_token == "stored-token"
    assert "canary" not in shown_variables(error)
    assert "stored-token" not in shown_variables(error)
    wait_until(lambda: airisk.journal)


def call_and_cancel(user: User, during: Callable[[str], bool]) -> None:
    """Call AIRisk, and cancel the call while the database does an update that sets these columns."""
    began, cancelled = threading.Event(), threading.Event()

    def slowly(execute: Any, sql: str, *args: Any) -> Any:
        if sql.startswith("UPDATE") and during(sql.partition("WHERE")[0]):
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
        using(user, use)


@committing
def test_cancelled_claim_leaves_no_lease(airisk: World, mia: User) -> None:
    give_token(mia, ends_in=-60)
    call_and_cancel(mia, during=lambda columns: "lease" in columns and "sealed" not in columns)
    assert (stored(mia).lease, stored(mia).access_token) == (None, "stored-token")
    assert not token_requests(airisk)


@committing
def test_cancelled_save_loses_no_token(airisk: World, mia: User) -> None:
    give_token(mia, ends_in=-60)
    call_and_cancel(mia, during=lambda columns: "lease" in columns and "sealed" in columns)
    assert stored(mia).lease is None
    assert stored(mia).access_token != "stored-token"
    assert len(token_requests(airisk)) == 1


@types.coroutine
def suspend() -> Iterator[None]:
    yield


class Suspended(Blocking):
    """Waits for AIRisk, and is never resumed, as if the event loop was closed."""

    async def obtain(self, deployment: Deployment, userid: str | None) -> TokenGrant:
        await suspend()
        raise AssertionError


def test_abandoned_renewal_lets_its_lease_expire(mia: User) -> None:
    give_token(mia, ends_in=-60)
    rule = Renewal(stored_token(mia), Suspended()).credential()
    rule.send(None)
    rule.close()
    assert stored(mia).lease_until is not None


# An event loop that is never blocked


@asynccontextmanager
async def airisk_on_this_loop(settings: Any) -> AsyncIterator[list[str]]:
    """Serve AIRisk on the event loop that calls it, so that a call that blocks the loop is never answered.

    What is posted redirects to a call that only a renewed token may make. One redirect breaks off. The requests are
    returned, as method and path.
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
    """Return what this coroutine makes of a client for this user, and the requests that AIRisk saw."""
    # A token without a noted origin, because the address of this AIRisk was not yet known.
    AIRiskToken.objects.update(origin="")

    @async_to_sync
    async def main() -> Any:
        async with airisk_on_this_loop(settings) as seen, AsyncAIRiskClient.for_user(user) as client:
            return await use(client), seen

    return main()


@pytest.mark.parametrize("ends_in", [3600, -60])
def test_calls_and_renewals_never_block_the_loop(settings: Any, mia: User, ends_in: float) -> None:
    """Django itself raises an error for a query on the loop."""
    give_token(mia, ends_in=ends_in)
    found, seen = on_this_loop(settings, mia, calls_at_once(3))
    assert found == [200] * 3
    assert seen.count("POST /api/oauth2/Token") == 1


# Redirects


REDIRECT = {"status": "303", "to": "/sandbox/api/Chat/ListAgents"}


def test_redirect_is_not_followed_by_default(airisk: World, mia: User) -> None:
    live_token(airisk, mia)
    answer = using(mia, lambda client: client.get("/api/Answer", params=REDIRECT))
    assert [each.status_code for each in [*answer.history, answer]] == api_statuses(airisk) == [303]


def test_redirect_is_followed_on_request(airisk: World, mia: User) -> None:
    live_token(airisk, mia)
    answer = using(mia, lambda client: client.get("/api/Answer", params=REDIRECT, follow_redirects=True))
    assert [each.status_code for each in [*answer.history, answer]] == api_statuses(airisk) == [303, 200]


def test_401_after_a_redirect_repeats_one_call(settings: Any, mia: User) -> None:
    give_token(mia)
    answer, seen = on_this_loop(settings, mia, lambda client: client.post("/api/Act", follow_redirects=True))
    assert answer.status_code == 200
    renewal = ["GET /api/oauth2", "POST /api/oauth2/Token"]
    assert seen == ["POST /api/Act", "GET /api/Chat/ListAgents", *renewal, "GET /api/Chat/ListAgents"]


def test_redirect_of_a_stream_is_returned(settings: Any, mia: User) -> None:
    """Following it would need the stream again."""
    give_token(mia)

    async def parts() -> AsyncIterator[bytes]:
        yield b"once"

    answer, seen = on_this_loop(
        settings, mia, lambda client: client.post("/api/ActThere", content=parts(), follow_redirects=True)
    )
    assert answer.status_code == 307
    assert seen == ["POST /api/ActThere"]


def test_redirect_that_breaks_off_is_unavailable(settings: Any, mia: User) -> None:
    give_token(mia)

    async def use(client: AsyncAIRiskClient) -> None:
        async with client.stream("GET", "/api/CutShort", follow_redirects=True):
            pass

    with pytest.raises(AIRiskUnavailable):
        on_this_loop(settings, mia, use)


def test_endless_async_redirects_are_invalid(airisk: World, mia: User) -> None:
    live_token(airisk, mia)
    to = "/sandbox/api/Answer?status=302&to=/sandbox/api/Answer%3Fstatus=302%26to=/sandbox/api/Chat/ListAgents"

    async def use(client: AsyncAIRiskClient) -> None:
        client.max_redirects = 2
        await client.get("/api/Answer", params={"status": "302", "to": to}, follow_redirects=True)

    with pytest.raises(AIRiskInvalidResponse):
        using(mia, use)


# Bodies and streams


@pytest.mark.parametrize(
    ("given", "body"),
    [
        ({"content": "füße"}, "füße".encode()),
        ({"content": b"\x00\xff"}, b"\x00\xff"),
        ({"data": {"text": "a b&c"}}, b"text=a+b%26c"),
        ({"json": {"text": 1}}, b'{"text":1}'),
    ],
)
def test_async_body_is_repeated_unchanged(airisk: World, mia: User, given: dict[str, Any], body: bytes) -> None:
    live_token(airisk, mia)
    airisk.end_all_tokens()
    answer = using(mia, lambda client: client.post("/api/Echo", **given))
    assert answer.json()["sha256"] == hashlib.sha256(body).hexdigest()
    assert api_statuses(airisk) == [401, 200]


def test_stream_is_not_repeated_after_a_401(airisk: World, mia: User) -> None:
    """The token is renewed all the same, so that the next call works."""
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


def test_async_response_is_streamed_after_a_401(airisk: World, mia: User) -> None:
    live_token(airisk, mia)
    airisk.end_all_tokens()

    async def use(client: AsyncAIRiskClient) -> str:
        async with client.stream("POST", "/api/Chat/AskAgent", json=QUESTION) as answer:
            return await anext(answer.aiter_lines())

    assert using(mia, use) == FIRST_LINE
    assert api_statuses(airisk) == [401, 200]


def test_late_async_response_is_unavailable(airisk: World, mia: User, settings: Any) -> None:
    live_token(airisk, mia)
    set_option(settings, API_TIMEOUT=(5, 0.1))
    given_up = threading.Event()
    with at_each_request("/api/Chat/ListAgents", given_up.wait), pytest.raises(AIRiskUnavailable) as raised:
        using(mia, lambda client: client.get("/api/Chat/ListAgents"))
    given_up.set()
    assert raised.value.__context__ is None
    assert AsyncAIRiskClient.for_user(mia).timeout == httpx2.Timeout(0.1, connect=5)
    wait_until(lambda: airisk.journal)


# Making a client


def test_making_an_async_client_does_no_io(airisk: World, mia: User) -> None:
    with CaptureQueriesContext(connection) as queries:
        AsyncAIRiskClient.for_user(mia)
        AsyncAIRiskClient.for_application()
    assert not queries
    assert not airisk.journal


def test_repeated_async_call_reads_no_database(airisk: World, mia: User) -> None:
    live_token(airisk, mia)

    def calls(number: int) -> Callable[[AsyncAIRiskClient], Coroutine[Any, Any, None]]:
        async def use(client: AsyncAIRiskClient) -> None:
            for _call in range(number):
                assert (await client.get("/api/Chat/ListAgents")).status_code == 200

        return use

    with CaptureQueriesContext(connection) as one:
        using(mia, calls(1))
    with CaptureQueriesContext(connection) as three:
        using(mia, calls(3))
    assert len(three) == len(one)
    assert api_statuses(airisk) == [200] * 4


def test_async_client_cannot_be_pickled(mia: User) -> None:
    with pytest.raises(TypeError, match="AIRisk"):
        pickle.dumps(AsyncAIRiskClient.for_user(mia))


def test_missing_httpx2_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx2", None)
    for module in ("airisk_oauth.wire.async_environment", "airisk_oauth.oauth.async_transport"):
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(ImportError, match=re.escape("pip install 'django-airisk-oauth[async]'")):
        importlib.import_module("airisk_oauth.oauth.async_transport")


# The documentation


def test_snippets_of_the_async_page_work(airisk: World, mia: User) -> None:
    live_token(airisk, mia)
    given: dict[str, Any] = {}
    for words in ("def conversations", "def agents_and_conversations"):
        exec(pages.snippet("docs/async.md", words), given)  # noqa: S102 - a snippet of the page
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
