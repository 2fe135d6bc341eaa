"""An answer for a browser: its events, its errors, and when AIRisk is called at all."""

import asyncio
import gc
import json
import socket
import ssl
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, StreamingHttpResponse
from django.test import AsyncRequestFactory, RequestFactory
from requests.adapters import HTTPAdapter

from airisk_oauth import AIRiskSession
from airisk_oauth.chat import answer_response
from airisk_oauth.exceptions import AIRiskUnavailable
from airisk_oauth.models import AIRiskIdentity, AIRiskToken
from airisk_oauth.sandbox.world import World
from airisk_oauth.wire.limits import TimedSocket
from tests.support.chat import QUESTION
from tests.support.chats import CHUNKED, CONVERSATION, HEAD, Watched, chunk, new_stream
from tests.support.options import set_option
from tests.support.people import api_statuses, give_token, live_token, token_requests
from tests.support.servers import events_in
from tests.support.wire import Certificate, Script, Serve, Server, dripping, http, saying

pytestmark = pytest.mark.django_db

#: Seconds that nothing here takes, on a machine with much to do.
SOON = 5


class Wsgi:
    """A request as a synchronous server makes it, and what it sends of a response."""

    request: Callable[..., HttpRequest] = RequestFactory().get

    def __init__(self, user: User | None) -> None:
        request: Any = self.request("/")
        request.airisk = AIRiskSession.for_visitor(request)
        if user is not None:
            request.user = user
        self.to: Any = request

    def send(self, response: StreamingHttpResponse, parts: list[bytes], most: int | None = None) -> None:
        stream: Any = iter(response)
        for part in stream:
            parts.append(part)
            if len(parts) == most:
                break
        response._iterator.close()  # type: ignore[attr-defined]


class Asgi(Wsgi):
    request = AsyncRequestFactory().get

    def send(self, response: StreamingHttpResponse, parts: list[bytes], most: int | None = None) -> None:
        async def send() -> None:
            stream: Any = response._iterator  # type: ignore[attr-defined]
            async for part in stream:
                parts.append(part)
                if len(parts) == most:
                    break
            await stream.aclose()

        async_to_sync(send)()


@pytest.fixture(params=[Wsgi, Asgi])
def server(request: pytest.FixtureRequest) -> type[Wsgi]:
    found: type[Wsgi] = request.param
    return found


At = Callable[..., Server]


@pytest.fixture
def at(settings: Any, serve: Serve, mia: User) -> At:
    """Let AIRisk do what a script says."""
    give_token(mia, access_token="token-canary")

    def at(script: Script, *context: Any, alias: str = "default", **options: Any) -> Server:
        AIRiskToken.objects.update(origin="")
        airisk = serve(script, *context)
        set_option(settings, alias, BASE_URL=airisk.url, **options)
        return airisk

    return at


def sent(
    server: type[Wsgi], user: User | None, most: int | None = None, to: str = CONVERSATION, **options: Any
) -> bytes:
    parts: list[bytes] = []
    answered = server(user)
    answered.send(answer_response(answered.to, to, "Why?", **options), parts, most)
    return b"".join(parts)


def events_of(server: type[Wsgi], user: User | None, **options: Any) -> list[tuple[str, Any]]:
    return [(name, json.loads(data)) for name, data in events_in(sent(server, user, **options))]


# What is sent


def test_each_piece_is_an_event_of_its_own(server: type[Wsgi], at: At, mia: User) -> None:
    at(saying(CHUNKED, chunk(new_stream("One. ", "Two\n\n", "Three ü")), chunk(b"")))
    assert events_of(server, mia) == [
        ("text", {"text": "One. "}),
        ("text", {"text": "Two\n\n"}),
        ("text", {"text": "Three ü"}),
        ("done", {"status": "completed"}),
    ]


def test_first_thing_sent_is_a_comment(server: type[Wsgi], at: At, mia: User) -> None:
    """So that the browser has the headers."""
    airisk = at(saying(CHUNKED))
    assert sent(server, mia, most=1) == b":\n\n"
    assert airisk.seen == []


def test_comments_are_sent_beside_noises(server: type[Wsgi], at: At, mia: User) -> None:
    """AIRisk sends something all the time, and no text."""
    noises = Watched(CHUNKED + chunk(b"\n"), chunk(new_stream("One.")) + chunk(b""))
    threading.Timer(1.5, noises.go_on.set).start()
    drip = dripping(CHUNKED, chunk(b"\n"))
    at(noises)
    assert sent(server, mia, keep_alive=0.02).count(b":\n\n") > 4
    at(drip)
    assert sent(server, mia, keep_alive=0.02, first_text_timeout=1.5).count(b":\n\n") > 4


def test_slow_browser_holds_the_answer_back(at: At, mia: User) -> None:
    """Nothing is gathered for it on the event loop, not even comments."""
    at(saying(CHUNKED, chunk(new_stream("One. ", "Two. ", "Three. ", "Four.")), chunk(b"")))
    answered, taken = Asgi(mia), list[bytes]()

    async def listen() -> None:
        stream: Any = answer_response(answered.to, CONVERSATION, "Why?", keep_alive=0.02)
        async for part in stream:
            taken.append(part)
            if b"text" in part:
                await asyncio.sleep(0.2)

    async_to_sync(listen)()
    assert [name for name, _data in events_in(b"".join(taken))] == ["text"] * 4 + ["done"]
    first = next(index for index, part in enumerate(taken) if b"text" in part)
    assert taken[first:].count(b":\n\n") <= 4


def test_user_of_that_moment_asks_the_deployment(server: type[Wsgi], at: At, mia: User) -> None:
    AIRiskIdentity.objects.create(user=mia, deployment="second", userid="user_2")
    give_token(mia, deployment="second", userid="user_2", access_token="second-token")
    airisk = at(saying(CHUNKED, chunk(new_stream("One.")), chunk(b"")), alias="second")
    assert events_of(server, mia, deployment="second")[-1][0] == "done"
    assert airisk.headers()["Authorization"] == "Bearer second-token"


def test_request_may_be_wrapped_by_a_framework(server: type[Wsgi], at: At, mia: User) -> None:
    at(saying(CHUNKED, chunk(new_stream("One.")), chunk(b"")))

    class Wrapped:
        """As Django REST framework does it."""

        def __init__(self, request: HttpRequest) -> None:
            self._request = request

        def __getattr__(self, name: str) -> Any:
            return getattr(self._request, name)

    parts: list[bytes] = []
    answered = server(mia)
    answered.send(answer_response(Wrapped(answered.to), CONVERSATION, "Why?"), parts)
    assert events_in(b"".join(parts))[-1][0] == "done"


def test_answer_comes_after_a_401(server: type[Wsgi], airisk: World, mia: User) -> None:
    live_token(airisk, mia)
    airisk.end_all_tokens()
    assert events_of(server, mia, to=QUESTION["conversationID"])[-1] == ("done", {"status": "completed"})
    assert api_statuses(airisk) == [401, 200]
    assert len(token_requests(airisk)) == 1


# Errors


def test_connection_required_is_an_event(server: type[Wsgi], airisk: World, mia: User) -> None:
    detail = "This user has not connected to AIRisk."
    assert events_of(server, mia) == [("error", {"detail": detail, "connect_url": "/airisk/connect/"})]
    assert api_statuses(airisk) == []


def test_refusal_is_an_event_without_secrets(server: type[Wsgi], at: At, mia: User) -> None:
    at(saying(http(b"Not your token: token-canary", "400 Bad Request", "Content-Type: text/plain")))
    assert events_of(server, mia) == [("error", {"detail": "AIRisk refused the request with status 400"})]


def test_stream_that_breaks_off_ends_in_an_event(server: type[Wsgi], at: At, mia: User) -> None:
    at(saying(HEAD + b"\r\n" + new_stream("One. ", end="")))
    assert events_of(server, mia) == [("text", {"text": "One. "}), ("error", {"detail": "AIRisk's answer broke off."})]


def test_airisk_that_is_not_there_is_an_event(server: type[Wsgi], at: At, mia: User) -> None:
    airisk = at(saying(b""))
    airisk.stop()
    [(name, data)] = events_of(server, mia)
    assert name == "error"
    assert data["detail"].startswith("AIRisk could not be reached (Connect")


def test_fault_of_the_site_is_told_and_raised(server: type[Wsgi], at: At, mia: User) -> None:
    at(saying(b""))
    parts: list[bytes] = []
    answered = server(None)
    with pytest.raises(ImproperlyConfigured):
        answered.send(answer_response(answered.to, CONVERSATION, "Why?"), parts)
    assert events_in(b"".join(parts)) == [("error", '{"detail": "The answer could not be fetched."}')]


# Leaving


@pytest.mark.parametrize("head", [b"", CHUNKED, CHUNKED + chunk(new_stream("One. ", end=""))])
def test_stream_that_is_closed_closes_the_call(server: type[Wsgi], at: At, mia: User, head: bytes) -> None:
    script = Watched(head)
    at(script)
    sent(server, mia, most=4, keep_alive=0.05)
    assert script.left.wait(SOON)


def test_answer_that_nobody_wants_asks_nothing(server: type[Wsgi], at: At, mia: User) -> None:
    airisk = at(saying(b""))
    answered = server(mia)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        response = answer_response(answered.to, CONVERSATION, "Why?")
        del response
        gc.collect()
    assert airisk.seen == []


def test_browser_that_leaves_early_asks_nothing(
    settings: Any, mia: User, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where AIRisk is still being connected to, which cannot be interrupted."""
    context, bundle = certificate("127.0.0.1")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", bundle)
    give_token(mia)
    AIRiskToken.objects.update(origin="")
    go_on, left = threading.Event(), threading.Event()

    def serve(listening: socket.socket) -> None:
        """Take some time for TLS."""
        sock, _address = listening.accept()
        assert go_on.wait(SOON)
        # Where TLS has something to send at that moment, leaving resets the connection.
        with suppress(ConnectionError, ssl.SSLError), context.wrap_socket(sock, server_side=True) as secure:
            secure.settimeout(SOON)
            assert secure.recv(1) == b""
        left.set()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(SOON)
        set_option(settings, BASE_URL=f"https://127.0.0.1:{listening.getsockname()[1]}")
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        sent(Wsgi, mia, most=3, keep_alive=0.05)
        go_on.set()
        thread.join(SOON)
    assert left.is_set()


# Transports


def test_answer_over_tls_is_sent_as_it_comes(
    server: type[Wsgi], at: At, mia: User, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole records are decrypted at once, and what is left of one does not make the socket readable."""
    context, bundle = certificate("127.0.0.1")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", bundle)
    texts = ["x" * 15_000, "y"]
    at(saying(CHUNKED, chunk(new_stream(*texts)), chunk(b"")), context)
    assert events_of(server, mia, keep_alive=SOON) == [
        *[("text", {"text": text}) for text in texts],
        ("done", {"status": "completed"}),
    ]


def test_adapter_of_the_sites_own_is_used(at: At, mia: User) -> None:
    """Its connections cannot be waited for. Deadlines hold between two reads."""
    at(saying(CHUNKED, chunk(new_stream("One.")), chunk(b"")))
    answered = Wsgi(mia)
    answered.to.airisk.mount("http://", HTTPAdapter())
    parts: list[bytes] = []
    answered.send(answer_response(answered.to, CONVERSATION, "Why?"), parts)
    assert events_in(b"".join(parts))[-1][0] == "done"


def test_deadlines_hold_between_reads_at_least(at: At, mia: User) -> None:
    """A busy machine may not send the next drop in time: then the read itself times out."""
    at(dripping(CHUNKED, chunk(b"\n")), API_TIMEOUT=(1, 0.3))
    with AIRiskSession.for_user(mia) as session:
        session.mount("http://", HTTPAdapter())
        with pytest.raises(AIRiskUnavailable, match=r"too long|ReadTimeout"):
            session.chat.agents()
        with (
            pytest.raises(AIRiskUnavailable, match=r"in time|ReadTimeout"),
            session.chat.ask(CONVERSATION, "Why?", first_text_timeout=0.3) as answer,
        ):
            next(answer)


def test_socket_that_tells_nothing_is_read() -> None:
    class WithinTls:
        """As urllib3 has it for TLS within TLS."""

        def gettimeout(self) -> None:
            return None

    assert TimedSocket(WithinTls()).wait(SOON)
