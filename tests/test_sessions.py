"""Calls to AIRisk's API: as whom, where to, and what becomes of a 401."""

import copy
import hashlib
import io
import os
import pickle
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Self

import httpx2
import pytest
import requests
import responses
from asgiref.sync import async_to_sync
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import ImproperlyConfigured
from django.http import JsonResponse
from django.http.response import HttpResponseBase
from django.urls import include, path
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries
from requests.exceptions import InvalidURL

from airisk_oauth import AIRiskAuth, AIRiskSession, AsyncAIRiskClient, conf
from airisk_oauth.connecting import flow
from airisk_oauth.exceptions import AIRiskError, AIRiskInvalidResponse, AIRiskUnavailable, ConnectionRequired
from airisk_oauth.models import AIRiskIdentity, AIRiskToken
from airisk_oauth.oauth.messages import Secret, TokenGrant
from airisk_oauth.sandbox.answers import problem
from airisk_oauth.sandbox.endpoint import SandboxRequest, endpoint
from airisk_oauth.sandbox.world import Caller, World
from airisk_oauth.tokens.outcomes import store
from tests.support.browsing import at_each_request
from tests.support.chat import FIRST_LINE, QUESTION
from tests.support.clock import set_clock, wait_until
from tests.support.database import committing
from tests.support.options import set_option
from tests.support.people import api_statuses, give_token, live_token, stored, token_requests
from tests.support.threads import in_threads
from tests.support.tracebacks import shown_variables
from tests.support.wire import BASE_URL, silent_flow

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]


@endpoint("/api/Answer", "GET")
def answer_as_told(call: SandboxRequest) -> HttpResponseBase:
    """An API call that answers what its parameters say, to a good token only, and sets a cookie each time."""
    if call.caller is None:
        refusal = problem(401)
        refusal.response.content = bytes(200_000)
        refusal.response.set_cookie("seen", "yes")
        raise refusal
    answer = JsonResponse({"cookies": call.request.COOKIES}, status=int(call.given.get("status", 200)))
    if "to" in call.given:
        answer["Location"] = call.given["to"]
    return answer


urlpatterns = [path("sandbox/api/Answer", answer_as_told), path("", include("tests.urls"))]


class Elsewhere(ThreadingHTTPServer):
    """Another server, which notes every connection, and of every request its path and its Authorization.

    It answers 401, or with a redirect to :attr:`back` where that is set.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _ElsewhereHandler)
        self.connections = 0
        self.back = ""
        self.seen: list[tuple[str, str | None]] = []
        self.place = f"127.0.0.1:{self.server_port}"

    def get_request(self) -> tuple[Any, Any]:
        self.connections += 1
        return super().get_request()


class _ElsewhereHandler(BaseHTTPRequestHandler):
    server: Elsewhere

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers.get("Authorization")))
        self.send_response(302 if self.server.back else 401)
        self.send_header("Location", self.server.back)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    with Elsewhere() as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def session(airisk: World, mia: User) -> Iterator[AIRiskSession]:
    """Mia's, with a token that AIRisk takes."""
    live_token(airisk, mia)
    with AIRiskSession.for_user(mia) as session:
        yield session


class Blocking:
    """The asynchronous client, driven from here, each call by an event loop of its own."""

    def __init__(self, client: AsyncAIRiskClient) -> None:
        self.client, self.deployment = client, client.deployment
        # As requests does by itself.
        client.follow_redirects = True

    @classmethod
    def for_user(cls, user: Any, deployment: str = "default") -> Self:
        return cls(AsyncAIRiskClient.for_user(user, deployment, keep_alive=False))

    @classmethod
    def for_application(cls, deployment: str = "default") -> Self:
        return cls(AsyncAIRiskClient.for_application(deployment, keep_alive=False))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        async_to_sync(self.client.aclose)()

    def get(self, url: str, **given: Any) -> Any:
        return async_to_sync(self.client.get)(url, **given)

    def post(self, url: str, **given: Any) -> Any:
        return async_to_sync(self.client.post)(url, **given)


both = pytest.mark.parametrize("kind", [AIRiskSession, Blocking])
#: How ``requests`` and ``httpx2`` call an address that is none.
WRONG_ADDRESS = (InvalidURL, httpx2.InvalidURL)


@pytest.fixture(params=[AIRiskSession, Blocking])
def either(request: pytest.FixtureRequest, airisk: World, mia: User) -> Iterator[Any]:
    """Mia's session or asynchronous client, with a token that AIRisk takes."""
    live_token(airisk, mia)
    with request.param.for_user(mia) as session:
        yield session


# Where to


@both
@pytest.mark.parametrize("alias", ["default", "second"])
@pytest.mark.parametrize(
    "address",
    ["/api/Echo", "{base}/api/Echo", "{upper}/api/Echo", "/api/Echo?a=b#c"],
)
def test_a_path_is_joined_to_the_base_url_and_a_url_of_its_origin_taken_as_it_is(
    airisk: World, settings: Any, alias: str, address: str, kind: Any
) -> None:
    base, client = settings.AIRISK_OAUTH[alias]["BASE_URL"], settings.AIRISK_OAUTH[alias]["CLIENT_ID"]
    live_token(airisk, client_id=client, deployment=alias)
    with kind.for_application(alias) as session:
        answer = session.get(address.format(base=base, upper=base.replace("http", "HTTP")))
    assert answer.status_code == 200
    assert str(answer.url).startswith(f"{base}/api/Echo")
    assert [seen.values["client_id"] for seen in airisk.journal] == [client]


@pytest.mark.parametrize(
    "address",
    [
        "//{elsewhere}/",
        "/\\{elsewhere}/",
        "\\\\{elsewhere}/",
        "@{elsewhere}/",
        ":1@{elsewhere}/",
        "{elsewhere}/",
        " http://{elsewhere}/",
        "http:{elsewhere}/",
        "http:///{elsewhere}/",
        "http://{elsewhere}/",
        "http://{own}@{elsewhere}/",
        "http://{own}\n@{elsewhere}/",
        "http://{own}.{elsewhere}/",
        "http://user@{own}/",
        "http://localhost:{port}/",
        "https://{own}/",
        "ftp://{own}/",
        "file:///etc/hosts",
        "api/Chat/ListAgents",
        "",
    ],
)
def test_any_other_address_raises_before_connecting(
    either: Any, airisk: World, elsewhere: Elsewhere, address: str
) -> None:
    own = either.deployment.base_url.removeprefix("http://").removesuffix("/sandbox")
    with pytest.raises(WRONG_ADDRESS):
        either.get(address.format(elsewhere=elsewhere.place, own=own, port=own.partition(":")[2]))
    assert not airisk.journal
    assert elsewhere.connections == 0


def test_neither_does_a_session_take_other_credentials_or_a_ready_request_elsewhere(
    session: AIRiskSession, elsewhere: Elsewhere
) -> None:
    url = f"http://{elsewhere.place}/"
    with pytest.raises(InvalidURL):
        session.get(url, auth=("mia", "password"))
    with pytest.raises(InvalidURL):
        session.send(requests.Request("GET", url).prepare())
    assert elsewhere.connections == 0


def test_an_auth_of_ones_own_session_raises_for_another_origin_before_connecting(
    airisk: World, mia: User, elsewhere: Elsewhere
) -> None:
    live_token(airisk, mia)
    with pytest.raises(InvalidURL):
        requests.get(f"http://{elsewhere.place}/", auth=AIRiskAuth.for_user(mia), timeout=5)
    assert elsewhere.connections == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("to", ["/sandbox/api/GetConversations", "{base}/api/GetConversations"])
@pytest.mark.parametrize("own", [False, True])
def test_a_redirect_within_the_origin_keeps_the_bearer(
    session: AIRiskSession, airisk: World, status: int, to: str, own: bool
) -> None:
    base = session.deployment.base_url
    caller: Any = requests.Session() if own else session
    with caller:
        answer = caller.get(
            f"{base}/api/Answer", params={"status": status, "to": to.format(base=base)}, auth=session.auth, timeout=5
        )
    assert answer.status_code == 200
    assert api_statuses(airisk) == [status, 200]


@pytest.mark.parametrize("refused_first", [False, True])
@pytest.mark.parametrize("to", ["http://{elsewhere}/", "//{elsewhere}/", "https://{own}/", "http://["])
def test_a_redirect_to_another_origin_is_handed_back(
    either: Any, airisk: World, elsewhere: Elsewhere, to: str, refused_first: bool
) -> None:
    if refused_first:
        airisk.end_all_tokens()
    own = either.deployment.base_url.removeprefix("http://")
    answer = either.get("/api/Answer", params={"status": "302", "to": to.format(elsewhere=elsewhere.place, own=own)})
    assert answer.status_code == 302
    assert elsewhere.connections == 0


@pytest.mark.parametrize("refused_first", [False, True])
def test_ones_own_session_follows_it_without_the_bearer_and_its_401_renews_nothing(
    airisk: World, session: AIRiskSession, elsewhere: Elsewhere, refused_first: bool
) -> None:
    if refused_first:
        airisk.end_all_tokens()
    url, to = f"{session.deployment.base_url}/api/Answer", f"http://{elsewhere.place}/there"
    answer = requests.get(url, {"status": "302", "to": to}, auth=session.auth, timeout=5)
    assert answer.status_code == 401
    assert elsewhere.seen == [("/there", None)]
    assert len(token_requests(airisk)) == refused_first


def test_credentials_that_requests_has_for_that_origin_are_not_taken_for_the_bearer(
    airisk: World, session: AIRiskSession, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login mia password theirs\n")
    monkeypatch.setenv("NETRC", str(netrc))
    url, to = f"{session.deployment.base_url}/api/Answer", f"http://{elsewhere.place}/there"
    assert requests.get(url, {"status": "302", "to": to}, auth=session.auth, timeout=5).status_code == 401
    assert [str(sent).partition(" ")[0] for _path, sent in elsewhere.seen] == ["Basic"]
    assert not token_requests(airisk)


def test_sent_back_by_another_origin_it_arrives_without_the_bearer(
    airisk: World, session: AIRiskSession, elsewhere: Elsewhere
) -> None:
    url, to = f"{session.deployment.base_url}/api/Answer", f"http://{elsewhere.place}/there"
    elsewhere.back = f"{session.deployment.base_url}/api/Chat/ListAgents"
    assert requests.get(url, {"status": "302", "to": to}, auth=session.auth, timeout=5).status_code == 401
    assert api_statuses(airisk) == [302, 401]


@pytest.mark.parametrize("refused_first", [False, True])
def test_https_on_the_same_host_is_another_origin_too(settings: Any, mia: User, refused_first: bool) -> None:
    """``requests`` itself would keep the header there."""
    set_option(settings, BASE_URL="http://127.0.0.1")
    give_token(mia)
    with responses.RequestsMock() as wire:
        if refused_first:
            wire.get("http://127.0.0.1/api/x", status=401)
            silent_flow(wire, {"json": {"access_token": "renewed"}}, "http://127.0.0.1")
        wire.get("http://127.0.0.1/api/x", status=302, headers={"Location": "https://127.0.0.1/api/x"})
        wire.get("https://127.0.0.1/api/x")
        answer = requests.get("http://127.0.0.1/api/x", auth=AIRiskAuth.for_user(mia), timeout=5)
    assert answer.url == "https://127.0.0.1/api/x"
    assert "Authorization" not in answer.request.headers


# What comes back


@pytest.mark.parametrize("status", [200, 201, 302, 400, 403, 404, 418, 429, 500, 503])
def test_every_status_comes_back_as_a_response(either: Any, airisk: World, status: int) -> None:
    assert either.get("/api/Answer", params={"status": status}).status_code == status
    assert api_statuses(airisk) == [status]


def test_so_does_an_outage(either: Any, airisk: World) -> None:
    airisk.switches.outage = True
    assert either.get("/api/GetConversations").status_code == 503
    assert not token_requests(airisk)


@pytest.mark.parametrize(
    ("api_timeout", "own", "is_late"),
    [((5, 0.1), None, True), ((5, 0.1), 5, False), (None, 0.1, True), (None, (5, 0.1), True), (None, None, False)],
)
def test_calls_have_the_deployments_timeouts_or_their_own(
    airisk: World, settings: Any, mia: User, api_timeout: Any, own: Any, is_late: bool
) -> None:
    if api_timeout is not None:
        set_option(settings, API_TIMEOUT=api_timeout)
    live_token(airisk, mia)
    given_up = threading.Event()
    with AIRiskSession.for_user(mia) as session:
        if is_late:
            with at_each_request("/api/Chat/ListAgents", given_up.wait), pytest.raises(AIRiskUnavailable):
                session.get("/api/Chat/ListAgents", timeout=own)
            given_up.set()
            wait_until(lambda: airisk.journal)
        else:
            airisk.switches.latency = 0.3
            assert session.get("/api/Chat/ListAgents", timeout=own).status_code == 200


@both
def test_a_transport_failure_is_unavailable_and_shows_no_bearer(settings: Any, mia: User, kind: Any) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        set_option(settings, BASE_URL=f"http://127.0.0.1:{nobody.getsockname()[1]}")
        give_token(mia)
        with kind.for_user(mia) as session, pytest.raises(AIRiskUnavailable) as caught:
            session.post("/api/Echo", json={"text": "hello"})
    error = caught.value
    assert error.__cause__ is None
    assert error.__context__ is None
    assert "stored-token" not in shown_variables(error)


def test_redirects_without_end_are_an_invalid_response(session: AIRiskSession) -> None:
    session.max_redirects = 2
    to = "/sandbox/api/Answer?status=302&to=/sandbox/api/Answer%3Fstatus=302%26to=/sandbox/api/Chat/ListAgents"
    with pytest.raises(AIRiskInvalidResponse) as caught:
        session.get("/api/Answer", params={"status": "302", "to": to})
    assert caught.value.__context__ is None


# The environment


def test_no_netrc_changes_a_header(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mia: User) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine demo.aicrisk.com login evil password evil\ndefault login evil password evil\n")
    monkeypatch.setenv("NETRC", str(netrc))
    give_token(mia, ends_in=-60)
    with responses.RequestsMock() as wire, AIRiskSession.for_user(mia) as session:
        silent_flow(wire, {"json": {"access_token": "renewed"}})
        wire.get(f"{BASE_URL}/api/Chat/ListAgents")
        session.get("/api/Chat/ListAgents")
        requests.get(f"{BASE_URL}/api/Chat/ListAgents", auth=AIRiskAuth.for_user(mia), timeout=5)
        sent = [call.request.headers.get("Authorization") for call in wire.calls]
    assert sent == [None, None, "Bearer renewed", "Bearer renewed"]


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_proxies_and_ca_bundle_are_those_of_the_environment_when_the_session_was_made(
    monkeypatch: pytest.MonkeyPatch, mia: User, variable: str
) -> None:
    give_token(mia, ends_in=-60)
    with responses.RequestsMock() as wire:
        silent_flow(wire, {"json": {"access_token": "renewed"}})
        wire.get(f"{BASE_URL}/api/Chat/ListAgents")
        for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        before = AIRiskSession.for_user(mia)
        with monkeypatch.context() as environment:
            environment.setenv(variable, "/etc/ca.pem")
            environment.setenv("https_proxy", "http://proxy.test:3128")
            session = AIRiskSession.for_user(mia)
            before.get("/api/Chat/ListAgents")
        session.get("/api/Chat/ListAgents")
        kwargs: list[Any] = [call.request.req_kwargs for call in wire.calls]  # type: ignore[attr-defined]
    theirs, none = ("/etc/ca.pem", "http://proxy.test:3128"), (True, None)
    # The renewal is a session of its own.
    assert [(each["verify"], each["proxies"].get("https")) for each in kwargs] == [theirs, theirs, none, theirs]


# After a 401


@pytest.mark.parametrize("own", [False, True])
def test_a_401_renews_and_the_call_is_made_once_more(
    session: AIRiskSession, airisk: World, mia: User, own: bool
) -> None:
    airisk.end_all_tokens()
    url = f"{session.deployment.base_url}/api/Answer"
    answer = requests.get(url, auth=AIRiskAuth.for_user(mia), timeout=5) if own else session.get(url)
    assert answer.status_code == 200
    assert api_statuses(airisk) == [401, 200]
    assert len(token_requests(airisk)) == 1
    # The first answer is no more than history: its cookies are kept, its connection is given back.
    [first] = answer.history
    assert first.raw.closed
    assert answer.json() == {"cookies": {"seen": "yes"}}
    if not own:
        assert session.cookies["seen"] == "yes"
        assert session.get(url).json() == {"cookies": {"seen": "yes"}}
    assert len(token_requests(airisk)) == 1


def test_a_second_401_comes_back_as_it_is(either: Any, airisk: World) -> None:
    answer = either.get("/api/Answer", params={"status": 401})
    assert answer.status_code == 401
    assert api_statuses(airisk) == [401, 401]
    assert len(token_requests(airisk)) == 1


def reconnect(airisk: World, mia: User) -> None:
    token, _ends = airisk.new_token(Caller("client-1", "user_42"))
    store(mia.pk, "default", "user_42", TokenGrant(Secret(token), None))


@committing
def test_what_airisk_refuses_whatever_the_token_costs_one_renewal_a_minute(
    either: Any, airisk: World, mia: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seconds, renewals in ((0, 1), (1, 1), (59, 1), (62, 2), (63, 2)):
        set_clock(monkeypatch, seconds)
        with type(either).for_user(mia) as another:
            for each in (either, another):
                assert each.get("/api/Answer", params={"status": 401}).status_code == 401
                assert each.get("/api/Answer").status_code == 200
        assert len(token_requests(airisk)) == renewals
    assert Counter(api_statuses(airisk)) == {200: 10, 401: 10 + 2}


@committing
def test_a_new_token_is_tried_however_the_one_before_it_fared(either: Any, airisk: World, mia: User) -> None:
    either.get("/api/Answer", params={"status": 401})
    airisk.end_all_tokens()
    assert either.get("/api/Answer").status_code == 401
    reconnect(airisk, mia)
    assert either.get("/api/Answer").status_code == 200
    # This one, too, may be ended by AIRisk before its time.
    airisk.end_all_tokens()
    assert either.get("/api/Answer").status_code == 200


def test_a_token_that_was_not_renewed_for_the_call_is_renewed_for_the_next(
    either: Any, airisk: World, mia: User
) -> None:
    either.get("/api/Chat/ListAgents")
    reconnect(airisk, mia)
    airisk.end_all_tokens()
    assert [either.get("/api/Chat/ListAgents").status_code for _call in range(2)] == [401, 200]


def test_a_401_for_a_token_that_has_been_replaced_only_replays(either: Any, airisk: World, mia: User) -> None:
    either.get("/api/Chat/ListAgents")
    airisk.end_all_tokens()
    row = stored(mia)
    row.access_token, _ends = airisk.new_token(Caller("client-1", "user_42"))
    row.save()
    assert either.get("/api/Chat/ListAgents").status_code == 200
    assert api_statuses(airisk) == [200, 401, 200]
    assert not token_requests(airisk)


@pytest.mark.parametrize(("status", "expected"), [(503, AIRiskUnavailable), (401, ConnectionRequired)])
def test_where_the_renewal_fails_its_error_is_raised_and_shows_no_bearer(
    mia: User, status: int, expected: type[AIRiskError]
) -> None:
    give_token(mia)
    with responses.RequestsMock() as wire, AIRiskSession.for_user(mia) as session:
        wire.get(f"{BASE_URL}/api/Chat/ListAgents", status=401)
        wire.get(f"{BASE_URL}/api/oauth2", status=status)
        with pytest.raises(expected) as caught:
            session.get("/api/Chat/ListAgents")
    assert "stored-token" not in shown_variables(caught.value)


class Stream(io.BytesIO):
    """A stream that cannot be wound back, and may say so late."""

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
def test_a_body_is_sent_again_intact(
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
    ids=["generator", "unseekable file", "file that cannot be wound back"],
)
def test_a_body_that_cannot_be_sent_again_is_not_and_the_next_call_works(
    session: AIRiskSession, airisk: World, make: Callable[[], Any]
) -> None:
    airisk.end_all_tokens()
    answer = session.post("/api/Echo", data=make(), headers={"Content-Length": "4"})
    assert answer.status_code == 401
    assert api_statuses(airisk) == [401]
    answer = session.post("/api/Echo", data=make(), headers={"Content-Length": "4"})
    assert answer.json()["text"] == "once"
    assert len(token_requests(airisk)) == 1


def test_an_answer_can_be_streamed_after_a_401(session: AIRiskSession, airisk: World) -> None:
    airisk.end_all_tokens()
    with session.post("/api/Chat/AskAgent", json=QUESTION, stream=True) as answer:
        assert answer.history[0].raw.closed
        assert not answer.raw.closed
        assert next(answer.iter_lines()) == FIRST_LINE.encode()
    assert api_statuses(airisk) == [401, 200]


# As whom


def test_making_one_does_no_io_and_a_warm_call_reads_no_database(
    session: AIRiskSession, airisk: World, mia: User, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_num_queries(0):
        for make in (AIRiskSession, AIRiskAuth):
            make.for_user(mia)
            make.for_application()
    assert not airisk.journal
    session.get("/api/Chat/ListAgents")
    with django_assert_num_queries(0):
        assert session.get("/api/GetConversations").status_code == 200


def test_an_unknown_deployment_is_a_wrong_setting() -> None:
    with pytest.raises(ImproperlyConfigured):
        AIRiskSession.for_application("third")


@pytest.mark.parametrize("use", [pickle.dumps, copy.copy, copy.deepcopy])
def test_neither_session_nor_auth_is_pickled_or_copied(session: AIRiskSession, use: Callable[[Any], Any]) -> None:
    session.get("/api/Chat/ListAgents")
    for each in (session, session.auth):
        with pytest.raises(TypeError, match="AIRisk"):
            use(each)


@pytest.mark.parametrize("replayed", [False, True])
def test_what_requests_gives_can_be_pickled(session: AIRiskSession, airisk: World, mia: User, replayed: bool) -> None:
    """As it can without us: an error of ``raise_for_status()`` crosses from a worker process, a response a cache."""
    if replayed:
        airisk.end_all_tokens()
    response = session.get("/api/Answer", params={"status": 404})
    with pytest.raises(requests.HTTPError) as raised:
        response.raise_for_status()
    for each in (raised.value, response, response.request):
        pickled = pickle.dumps(each)
        assert stored(mia).access_token.encode() not in pickled
        again = pickle.loads(pickled)  # noqa: S301 - our own
        assert "404" in f"{again}" or again.url == response.url
    assert copy.copy(response.request.headers["Authorization"]) is response.request.headers["Authorization"]
    assert copy.deepcopy(response.request).headers["Authorization"] == f"Bearer {stored(mia).access_token}"
    # Without its session a request that was sent elsewhere renews nothing.
    abroad = pickle.loads(pickle.dumps(response.request))  # noqa: S301 - our own
    assert abroad.hooks["response"][0](response) is response


def test_a_header_of_the_callers_own_is_kept(session: AIRiskSession) -> None:
    response = session.get("/api/Answer", headers={"Cache-Control": "max-age=0"})
    assert response.request.headers["Cache-Control"] == "max-age=0"
    async_to_sync(session.aclose)()


def test_each_user_answers_for_their_own_401_only(airisk: World, session: AIRiskSession, mia: User) -> None:
    """A prepared request, or a copy of a template, can be signed for one user and then for another."""
    leo = User.objects.create_user("leo")
    AIRiskIdentity.objects.create(user=leo, userid="user_7")
    give_token(leo, userid="user_7", access_token="never-valid")
    template = requests.Request("GET", f"{session.deployment.base_url}/api/GetConversations").prepare()
    for auth in [AIRiskAuth.for_user(mia), *[AIRiskAuth.for_user(leo)] * 2]:
        template.prepare_auth(auth)
    answer = requests.Session().send(template, timeout=5)
    assert answer.status_code == 200
    assert [seen.values.get("userid") for seen in airisk.journal if seen.endpoint == "/api/GetConversations"] == [
        None,
        "user_7",
    ]
    assert stored(leo).access_token != "never-valid"
    # Nor is what somebody else has put there taken for ours.
    template.headers["Authorization"] = "Bearer somebody-elses"
    assert requests.Session().send(template, timeout=5).status_code == 401


CACHED = """
import requests, threading
from requests.sessions import Session

class Cached(Session):
    kept = {}
    def send(self, request, **kwargs):
        if "no-store" in request.headers.get("Cache-Control", ""):
            return super().send(request, **kwargs)
        return self.kept.get(request.url) or self.kept.setdefault(request.url, super().send(request, **kwargs))

requests.Session = requests.sessions.Session = Cached

import os, django
django.setup()
from airisk_oauth import AIRiskAuth, AIRiskSession
from django.contrib.auth.models import User
from airisk_oauth.models import AIRiskIdentity
from airisk_oauth.testing import FakeAIRisk
from django.core.management import call_command
from django.http import JsonResponse

call_command("migrate", verbosity=0)
with FakeAIRisk() as airisk:
    airisk.answer("GET", "/api/Me", lambda call: JsonResponse({"userid": call.userid}))
    for name in ("mia", "leo"):
        user = User.objects.create_user(name)
        airisk.connect(user, name)
        assert AIRiskSession.for_user(user).get("/api/Me").json() == {"userid": name}
        url = "https://demo.aicrisk.com/api/Me"
        assert requests.get(url, auth=AIRiskAuth.for_user(user), timeout=5).json() == {"userid": name}
"""


@pytest.mark.once
def test_a_session_that_caches_keeps_users_apart() -> None:
    """In a process of its own, where it takes the place of ``requests.Session`` before we are imported."""
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    subprocess.run([sys.executable, "-c", CACHED], check=True, timeout=60, env=environment)


@pytest.mark.parametrize("kind", [AIRiskAuth, AIRiskSession, AsyncAIRiskClient])
def test_a_user_who_is_missing_is_an_error_at_once(kind: Any) -> None:
    with pytest.raises(TypeError, match="for_application"):
        kind.for_user(None)


@both
@pytest.mark.parametrize("user", [AnonymousUser(), User(username="unsaved")], ids=["anonymous", "unsaved"])
def test_nobody_never_calls_as_the_application(airisk: World, settings: Any, user: Any, kind: Any) -> None:
    set_option(settings, USERID=f"{__name__}.anybody")
    live_token(airisk)
    with kind.for_user(user) as session, pytest.raises(ConnectionRequired):
        session.get("/api/Chat/ListAgents")
    assert airisk.journal == []


def anybody(_user: Any, _deployment: str) -> str:
    """A site's own ``USERID``."""
    return "user_42"


@both
@pytest.mark.parametrize("ends_in", [3600, -60])
def test_a_token_goes_to_the_origin_it_came_from(
    airisk: World, settings: Any, mia: User, elsewhere: Elsewhere, kind: Any, ends_in: float
) -> None:
    give_token(mia, ends_in=ends_in)
    set_option(settings, BASE_URL=f"http://{elsewhere.place}")
    with kind.for_user(mia) as session, pytest.raises(ConnectionRequired, match="another address"):
        session.get("/api/Chat/ListAgents")
    assert elsewhere.connections == 0


def test_the_applications_token_is_obtained_anew_there(airisk: World, settings: Any) -> None:
    there = settings.AIRISK_OAUTH["default"]["BASE_URL"]
    set_option(settings, BASE_URL="https://former.aicrisk.com")
    give_token(None)
    set_option(settings, BASE_URL=there)
    with AIRiskSession.for_application() as session:
        assert session.get("/api/Answer").status_code == 200
    assert stored(None).origin == conf.deployment().origin_text


def test_a_token_from_before_its_origin_was_noted_is_used(session: AIRiskSession) -> None:
    AIRiskToken.objects.update(origin="")
    assert session.get("/api/Chat/ListAgents").status_code == 200


def _forget(mia: User) -> None:
    flow.disconnect(stored(mia))


def _remap(mia: User) -> None:
    AIRiskIdentity.objects.update(userid="user_7")


def _unmap(mia: User) -> None:
    AIRiskIdentity.objects.all().delete()


def _damage(mia: User) -> None:
    AIRiskToken.objects.update(sealed="damaged")


def _take_the_applications(mia: User) -> None:
    AIRiskToken.objects.filter(user=mia).update(sealed=stored(None).sealed)


@both
@pytest.mark.parametrize("change", [_forget, _remap, _unmap, _damage, _take_the_applications])
@pytest.mark.parametrize("ends_in", [3600, -60])
def test_a_user_who_has_to_connect_is_told_where_without_a_call(
    airisk: World, mia: User, change: Callable[[User], None], ends_in: float, kind: Any
) -> None:
    live_token(airisk)
    live_token(airisk, mia, ends_in=ends_in)
    change(mia)
    rows = list(AIRiskToken.objects.order_by("pk").values("pk", "sealed", "expires_at", "failure_count"))
    with kind.for_user(mia) as session, pytest.raises(ConnectionRequired) as caught:
        session.get("/api/GetConversations")
    assert (caught.value.deployment, caught.value.connect_url) == ("default", "/airisk/connect/")
    assert list(AIRiskToken.objects.order_by("pk").values("pk", "sealed", "expires_at", "failure_count")) == rows
    assert not airisk.journal


@both
@pytest.mark.parametrize("alias", ["default", "second"])
@pytest.mark.parametrize("is_anonymous", [True, False])
def test_nobody_gets_a_first_token_silently_or_the_applications(
    airisk: World, mia: User, alias: str, is_anonymous: bool, kind: Any
) -> None:
    live_token(airisk, deployment=alias)
    user = AnonymousUser() if is_anonymous else mia
    with kind.for_user(user, alias) as session, pytest.raises(ConnectionRequired) as caught:
        session.get("/api/Chat/ListAgents")
    assert caught.value.connect_url == ("/airisk/connect/" if alias == "default" else "/airisk/connect/second/")
    assert not airisk.journal


@pytest.mark.parametrize("change", [_forget, _remap, _unmap])
def test_a_session_at_work_notices_within_60_s(
    either: Any, airisk: World, mia: User, monkeypatch: pytest.MonkeyPatch, change: Callable[[User], None]
) -> None:
    assert either.get("/api/GetConversations").status_code == 200
    change(mia)
    set_clock(monkeypatch, 60)
    with pytest.raises(ConnectionRequired):
        either.get("/api/GetConversations")
    assert api_statuses(airisk) == [200]


@both
@committing
def test_a_session_at_work_goes_over_to_a_renewed_token_when_that_is_due(
    airisk: World, mia: User, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    live_token(airisk, mia, ends_in=310)
    with kind.for_user(mia) as session:
        for seconds, renewals in ((0, 0), (9, 0), (11, 1)):
            set_clock(monkeypatch, seconds)
            assert session.get("/api/GetConversations").status_code == 200
            assert len(token_requests(airisk)) == renewals


@both
@committing
def test_a_session_at_work_notices_within_5_s_what_another_process_brought_when_that_is_due(
    airisk: World, mia: User, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    token = live_token(airisk, mia, ends_in=200, retry_at=timezone.now() + timedelta(hours=1))
    with kind.for_user(mia) as session:
        session.get("/api/Chat/ListAgents")
        airisk.end_all_tokens()
        token.access_token, _ends = airisk.new_token(Caller("client-1", "user_42"))
        token.save()
        set_clock(monkeypatch, 5)
        session.get("/api/Chat/ListAgents")
    assert api_statuses(airisk) == [200, 200]


# The application


@committing
def test_the_applications_first_token_takes_one_request_whoever_asks(airisk: World) -> None:
    def call() -> int:
        with AIRiskSession.for_application() as session:
            return session.get("/api/Echo").status_code

    airisk.switches.latency = 0.05
    assert in_threads(40, call) == [200] * 40
    assert len(token_requests(airisk)) == 1
    assert AIRiskToken.objects.count() == 1


@both
@pytest.mark.parametrize("what", ["login_page", "outage", "not silent"])
def test_its_failure_redirects_nobody_and_leaves_a_row_to_try_again(
    airisk: World, settings: Any, monkeypatch: pytest.MonkeyPatch, what: str, kind: Any
) -> None:
    if what == "not silent":
        set_option(settings, SILENT_RENEWAL=False)
    else:
        setattr(airisk.switches, what, True)
    with pytest.raises(AIRiskError) as caught, kind.for_application() as session:
        session.get("/api/Echo")
    assert isinstance(caught.value, AIRiskUnavailable if what == "outage" else ConnectionRequired)
    assert getattr(caught.value, "connect_url", None) is None
    assert stored().sealed == ""
    assert not api_statuses(airisk)
    airisk.reset()
    set_option(settings, SILENT_RENEWAL=True)
    set_clock(monkeypatch, 6)
    with kind.for_application() as session:
        assert session.get("/api/Echo").status_code == 200


@both
def test_a_user_needs_a_token_of_their_own_where_the_applications_will_not_do(airisk: World, kind: Any) -> None:
    with kind.for_application() as session:
        assert session.get("/api/GetConversations").status_code == 403
    assert api_statuses(airisk) == [403]
