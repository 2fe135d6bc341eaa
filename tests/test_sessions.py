"""Calls to AIRisk's API: where they go, what comes back, and what the environment changes."""

import copy
import pickle
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
import requests
import responses
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from pytest_django import DjangoAssertNumQueries
from requests.exceptions import InvalidURL

from airisk_oauth import AIRiskAuth, AIRiskSession
from airisk_oauth.exceptions import AIRiskInvalidResponse, AIRiskUnavailable
from airisk_oauth.sandbox.world import World
from tests.support.api_clients import OtherServer, with_each_client
from tests.support.browsing import at_each_request
from tests.support.clock import wait_until
from tests.support.options import set_option
from tests.support.people import api_statuses, give_token, live_token, stored, token_requests
from tests.support.tracebacks import shown_variables
from tests.support.wire import BASE_URL, silent_flow

pytestmark = pytest.mark.django_db


#: The errors of ``requests`` and ``httpx2`` for an address that cannot be used.
WRONG_ADDRESS = (InvalidURL, httpx2.InvalidURL)


# Where to


@with_each_client
@pytest.mark.parametrize("alias", ["default", "second"])
@pytest.mark.parametrize(
    "address",
    ["/api/Echo", "{base}/api/Echo", "{upper}/api/Echo", "/api/Echo?a=b#c"],
)
def test_paths_and_own_urls_reach_the_deployment(
    airisk: World, settings: Any, alias: str, address: str, client_class: Any
) -> None:
    base, client = settings.AIRISK_OAUTH[alias]["BASE_URL"], settings.AIRISK_OAUTH[alias]["CLIENT_ID"]
    live_token(airisk, client_id=client, deployment=alias)
    with client_class.for_application(alias) as session:
        answer = session.get(address.format(base=base, upper=base.replace("http", "HTTP")))
    assert answer.status_code == 200
    assert str(answer.url).startswith(f"{base}/api/Echo")
    assert [seen.values["client_id"] for seen in airisk.journal] == [client]


@pytest.mark.parametrize(
    "address",
    [
        "//{other_server}/",
        "/\\{other_server}/",
        "\\\\{other_server}/",
        "@{other_server}/",
        ":1@{other_server}/",
        "{other_server}/",
        " http://{other_server}/",
        "http:{other_server}/",
        "http:///{other_server}/",
        "http://{other_server}/",
        "http://{own}@{other_server}/",
        "http://{own}\n@{other_server}/",
        "http://{own}.{other_server}/",
        "http://user@{own}/",
        "http://localhost:{port}/",
        "https://{own}/",
        "ftp://{own}/",
        "file:///etc/hosts",
        "api/Chat/ListAgents",
        "",
    ],
)
def test_other_address_raises_before_connecting(
    api_client: Any, airisk: World, other_server: OtherServer, address: str
) -> None:
    own = api_client.deployment.base_url.removeprefix("http://").removesuffix("/sandbox")
    with pytest.raises(WRONG_ADDRESS):
        api_client.get(address.format(other_server=other_server.host, own=own, port=own.partition(":")[2]))
    assert not airisk.journal
    assert other_server.connections == 0


def test_session_sends_no_request_elsewhere(session: AIRiskSession, other_server: OtherServer) -> None:
    """Not even with other credentials, or one that was prepared outside the session."""
    url = f"http://{other_server.host}/"
    with pytest.raises(InvalidURL):
        session.get(url, auth=("mia", "password"))
    with pytest.raises(InvalidURL):
        session.send(requests.Request("GET", url).prepare())
    assert other_server.connections == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("to", ["/sandbox/api/GetConversations", "{base}/api/GetConversations"])
def test_redirect_to_own_origin_keeps_the_token(session: AIRiskSession, airisk: World, status: int, to: str) -> None:
    params = {"status": str(status), "to": to.format(base=session.deployment.base_url)}
    assert session.get("/api/Answer", params=params).status_code == 200
    assert api_statuses(airisk) == [status, 200]


@pytest.mark.parametrize("is_rejected", [False, True])
@pytest.mark.parametrize("to", ["http://{other_server}/", "//{other_server}/", "https://{own}/", "http://["])
def test_redirect_elsewhere_is_not_followed(
    api_client: Any, airisk: World, other_server: OtherServer, to: str, is_rejected: bool
) -> None:
    if is_rejected:
        airisk.end_all_tokens()
    own = api_client.deployment.base_url.removeprefix("http://")
    answer = api_client.get(
        "/api/Answer", params={"status": "302", "to": to.format(other_server=other_server.host, own=own)}
    )
    assert answer.status_code == 302
    assert other_server.connections == 0


# What comes back


@pytest.mark.parametrize("status", [200, 201, 302, 400, 403, 404, 418, 429, 500, 503])
def test_every_status_is_returned_as_a_response(api_client: Any, airisk: World, status: int) -> None:
    assert api_client.get("/api/Answer", params={"status": status}).status_code == status
    assert api_statuses(airisk) == [status]


def test_outage_is_returned_as_a_response(api_client: Any, airisk: World) -> None:
    airisk.switches.outage = True
    assert api_client.get("/api/GetConversations").status_code == 503
    assert not token_requests(airisk)


@pytest.mark.parametrize(("setting", "own"), [((5, 0.1), None), ((5, 30), 0.1), ((5, 30), (5, 0.1))])
def test_late_response_is_unavailable(airisk: World, settings: Any, mia: User, setting: Any, own: Any) -> None:
    set_option(settings, API_TIMEOUT=setting)
    live_token(airisk, mia)
    given_up = threading.Event()
    with AIRiskSession.for_user(mia) as session:
        with at_each_request("/api/Chat/ListAgents", given_up.wait), pytest.raises(AIRiskUnavailable):
            session.get("/api/Chat/ListAgents", timeout=own)
        given_up.set()
        wait_until(lambda: airisk.journal)


@pytest.mark.parametrize(("setting", "own"), [((5, 0.1), 5), ((5, 30), None)])
def test_slow_response_in_time_is_returned(airisk: World, settings: Any, mia: User, setting: Any, own: Any) -> None:
    set_option(settings, API_TIMEOUT=setting)
    live_token(airisk, mia)
    airisk.switches.latency = 0.3
    with AIRiskSession.for_user(mia) as session:
        assert session.get("/api/Chat/ListAgents", timeout=own).status_code == 200


@with_each_client
def test_failed_connection_shows_no_token(settings: Any, mia: User, client_class: Any) -> None:
    """The error is an ``AIRiskUnavailable``."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        set_option(settings, BASE_URL=f"http://127.0.0.1:{unused.getsockname()[1]}")
        give_token(mia)
        with client_class.for_user(mia) as session, pytest.raises(AIRiskUnavailable) as raised:
            session.post("/api/Echo", json={"text": "hello"})
    error = raised.value
    assert error.__cause__ is None
    assert error.__context__ is None
    assert "stored-token" not in shown_variables(error)


def test_endless_redirects_are_invalid(session: AIRiskSession) -> None:
    session.max_redirects = 2
    to = "/sandbox/api/Answer?status=302&to=/sandbox/api/Answer%3Fstatus=302%26to=/sandbox/api/Chat/ListAgents"
    with pytest.raises(AIRiskInvalidResponse) as raised:
        session.get("/api/Answer", params={"status": "302", "to": to})
    assert raised.value.__context__ is None


# The environment


def test_netrc_changes_no_header(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mia: User) -> None:
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
def test_session_reads_the_environment_once(monkeypatch: pytest.MonkeyPatch, mia: User, variable: str) -> None:
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
    # The renewal has a session of its own.
    assert [(each["verify"], each["proxies"].get("https")) for each in kwargs] == [theirs, theirs, none, theirs]


# Making a session


def test_making_a_session_does_no_io(
    airisk: World, mia: User, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_num_queries(0):
        for make in (AIRiskSession, AIRiskAuth):
            make.for_user(mia)
            make.for_application()
    assert not airisk.journal


def test_repeated_call_reads_no_database(
    session: AIRiskSession, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    session.get("/api/Chat/ListAgents")
    with django_assert_num_queries(0):
        assert session.get("/api/GetConversations").status_code == 200


def test_unknown_deployment_is_a_wrong_setting() -> None:
    with pytest.raises(ImproperlyConfigured):
        AIRiskSession.for_application("third")


@pytest.mark.parametrize("use", [pickle.dumps, copy.copy, copy.deepcopy])
def test_session_and_auth_cannot_be_copied(session: AIRiskSession, use: Callable[[Any], Any]) -> None:
    session.get("/api/Chat/ListAgents")
    for each in (session, session.auth):
        with pytest.raises(TypeError, match="AIRisk"):
            use(each)


@pytest.mark.parametrize("replayed", [False, True])
def test_responses_and_errors_can_be_pickled(session: AIRiskSession, airisk: World, mia: User, replayed: bool) -> None:
    """An error of ``raise_for_status()`` may be sent by a worker process, and a response may be cached."""
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
    # In another process, without its session, a request renews nothing.
    moved = pickle.loads(pickle.dumps(response.request))  # noqa: S301 - our own
    assert moved.hooks["response"][0](response) is response


def test_cache_control_of_the_caller_is_kept(session: AIRiskSession) -> None:
    response = session.get("/api/Answer", headers={"Cache-Control": "max-age=0"})
    assert response.request.headers["Cache-Control"] == "max-age=0"
    async_to_sync(session.aclose)()
