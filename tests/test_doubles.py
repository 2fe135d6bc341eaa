"""Test doubles for the network: ``FakeAIRisk`` combined with others, and others without it."""

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import httpx2
import pytest
import requests
import requests_mock
import responses
import vcr
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.test import LiveServerTestCase
from requests.adapters import HTTPAdapter
from responses.registries import OrderedRegistry

from airisk_oauth import AIRiskAuth, AIRiskSession, AsyncAIRiskClient
from airisk_oauth.exceptions import AIRiskUnavailable
from airisk_oauth.models import AIRiskToken
from airisk_oauth.sandbox.world import World
from airisk_oauth.testing import AIRiskTestMixin, FakeAIRisk
from tests.support.options import set_option
from tests.support.people import give_token
from tests.support.wire import Serve, Server, http, saying

pytestmark = [pytest.mark.django_db, pytest.mark.once, pytest.mark.usefixtures("nothing_in_the_environment")]

ELSEWHERE = "https://other.example.com/"
PATH = "/api/GetConversations"


@pytest.fixture
def real(serve: Serve, settings: Any) -> Iterator[Server]:
    """The real AIRisk, which no request may reach."""
    server = serve(saying(http(b'{"access_token": "real"}')))
    set_option(settings, BASE_URL=server.url)
    yield server
    assert server.seen == []


def call(user: User) -> Any:
    with AIRiskSession.for_user(user) as session:
        return session.get(PATH).json()


@async_to_sync
async def call_on_a_loop(user: User) -> Any:
    async with AsyncAIRiskClient.for_user(user) as client:
        return (await client.get(PATH)).json()


def call_with_an_expired_token(airisk: FakeAIRisk, user: User) -> Any:
    """Make both OAuth requests and the call itself."""
    airisk.connect(user)
    airisk.expire(user)
    airisk.answer("GET", PATH, json=["A plan"])
    return call(user)


# FakeAIRisk combined with others


@contextmanager
def default_block() -> Iterator[responses.RequestsMock]:
    with responses.mock:
        yield responses.mock


@contextmanager
def block_of_its_own() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as block:
        yield block


blocks = pytest.mark.parametrize("block", [default_block, block_of_its_own])


@blocks
def test_responses_block_works_within_the_fake(real: Server, mia: User, block: Any) -> None:
    with FakeAIRisk() as airisk:
        with block() as inner:
            inner.get(ELSEWHERE, json="other")
            assert call_with_an_expired_token(airisk, mia) == ["A plan"]
            assert requests.get(ELSEWHERE, timeout=1).json() == "other"
        assert call_with_an_expired_token(airisk, mia) == ["A plan"]
        with pytest.raises(requests.ConnectionError):
            requests.get(ELSEWHERE, timeout=1)


@blocks
def test_responses_block_works_around_the_fake(real: Server, mia: User, block: Any) -> None:
    with block() as outer:
        outer.get(ELSEWHERE, json="other")
        outer.get(f"{real.url}/api/Own", json="own")
        requests.get(ELSEWHERE, timeout=1)
        with FakeAIRisk() as airisk:
            assert call_with_an_expired_token(airisk, mia) == ["A plan"]
            if outer is responses.mock:
                assert requests.get(ELSEWHERE, timeout=1).json() == "other"
        assert requests.get(ELSEWHERE, timeout=1).json() == "other"
        assert requests.get(f"{real.url}/api/Own", timeout=1).json() == "own"
        assert outer.calls[0].request.url == ELSEWHERE
        with pytest.raises(requests.ConnectionError):
            requests.get(f"{real.url}{PATH}", timeout=1)


def test_registered_answers_win_and_are_removed(real: Server, mia: User) -> None:
    with FakeAIRisk() as airisk:
        airisk.connect(mia)
        responses.get(f"{real.url}{PATH}", json="first")
        responses.add_passthru("https://nowhere.invalid")
        assert call(mia) == "first"
        assert len(responses.calls) == 1
    assert (responses.registered(), len(responses.calls), responses.mock.passthru_prefixes) == ([], 0, ())


def test_ordered_registry_keeps_its_order(real: Server, mia: User) -> None:
    with (
        FakeAIRisk() as airisk,
        responses.RequestsMock(registry=OrderedRegistry) as ordered,
    ):
        ordered.get(ELSEWHERE, json=1)
        ordered.get(f"{real.url}{PATH}", json=2)
        ordered.get(ELSEWHERE, json=3)
        airisk.answer("GET", "/api/Other", json=0)
        airisk.connect(mia)
        with AIRiskSession.for_user(mia) as session:
            found = [session.get("/api/Other"), requests.get(ELSEWHERE, timeout=1), session.get(PATH)]
        found.append(requests.get(ELSEWHERE, timeout=1))
        assert [each.json() for each in found] == [0, 1, 2, 3]
        with pytest.raises(requests.ConnectionError):
            requests.get(ELSEWHERE, timeout=1)


def test_responses_block_may_outlive_the_fake(real: Server) -> None:
    original = HTTPAdapter.send
    with ExitStack() as inner:
        with FakeAIRisk():
            block = inner.enter_context(block_of_its_own())
        block.get(ELSEWHERE, json="other")
        assert requests.get(ELSEWHERE, timeout=1).json() == "other"
    # The patch that remains passes everything on to the original.
    nowhere = mock.patch.object(HTTPAdapter, "get_connection_with_tls_context", side_effect=requests.ConnectionError)
    with nowhere, pytest.raises(requests.ConnectionError):
        requests.get(ELSEWHERE, timeout=1)
    HTTPAdapter.send = original  # type: ignore[method-assign]


def test_outer_responses_block_may_not_end_first(real: Server, mia: User) -> None:
    with ExitStack() as outer:
        outer.enter_context(default_block())
        with FakeAIRisk() as airisk:
            airisk.connect(mia)
            outer.close()
            with pytest.raises(RuntimeError, match="bypasses FakeAIRisk"):
                call(mia)
    assert HTTPAdapter.send.__module__ == "requests.adapters"


def test_outer_httpx2_patch_may_not_end_first(real: Server, mia: User) -> None:
    async def nothing(_transport: Any, _request: Any) -> Any: ...

    with ExitStack() as outer:
        outer.enter_context(mock.patch.object(httpx2.AsyncHTTPTransport, "handle_async_request", nothing))
        with FakeAIRisk() as airisk:
            airisk.connect(mia)
            outer.close()
            with pytest.raises(RuntimeError, match="bypasses FakeAIRisk"):
                call_on_a_loop(mia)


def test_second_fake_is_refused_without_trace(real: Server, mia: User) -> None:
    def enter_another() -> None:
        with pytest.raises(RuntimeError, match="already active"), FakeAIRisk():
            pytest.fail("There are two.")

    with FakeAIRisk() as airisk:
        enter_another()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(enter_another).result()
        with pytest.raises(RuntimeError, match="already active"):
            airisk.__enter__()
        assert call_with_an_expired_token(airisk, mia) == ["A plan"]
        assert call_on_a_loop(mia) == ["A plan"]
    for owner, name in ((HTTPAdapter, "send"), (httpx2.AsyncHTTPTransport, "handle_async_request")):
        assert getattr(owner, name).__module__.startswith(("requests.", "httpx2"))


def test_fakes_may_follow_each_other(real: Server, mia: User) -> None:
    for _turn in range(2):
        with FakeAIRisk() as airisk:
            assert call_with_an_expired_token(airisk, mia) == ["A plan"]


def test_requests_mock_passes_calls_to_the_fake(real: Server, mia: User) -> None:
    with FakeAIRisk() as airisk, requests_mock.Mocker(real_http=True) as mocker:
        mocker.get(ELSEWHERE, json="other")
        assert requests.get(ELSEWHERE, timeout=1).json() == "other"
        assert call_with_an_expired_token(airisk, mia) == ["A plan"]
    with FakeAIRisk() as airisk, requests_mock.Mocker(), pytest.raises(requests_mock.NoMockAddress):
        call_with_an_expired_token(airisk, mia)


def test_vcr_records_calls_beside_the_fake(real: Server, serve: Serve, mia: User, tmp_path: Path) -> None:
    other = serve(saying(http(b'"other"')))
    for _turn in range(2):
        with FakeAIRisk() as airisk, vcr.use_cassette(tmp_path / "other.yaml"):
            responses.add_passthru(other.url)
            assert requests.get(other.url, timeout=5).json() == "other"
            assert call_with_an_expired_token(airisk, mia) == ["A plan"]
    assert len(other.seen) == 1


class TestLiveServer(AIRiskTestMixin, LiveServerTestCase):
    def test_fake_answers_for_a_live_server(self) -> None:
        self.airisk.connect_application()
        self.airisk.answer("GET", "/api/Echo", json=[])
        responses.add_passthru(self.live_server_url)
        answer = requests.get(f"{self.live_server_url}/application/", timeout=5)
        assert answer.json() == {"status": 200}


# Others without FakeAIRisk


def test_requests_mock_sees_all_calls(real: Server, mia: User) -> None:
    give_token(mia, ends_in=-60)
    with requests_mock.Mocker() as mocker:
        with pytest.raises(requests_mock.NoMockAddress):
            call(mia)
        mocker.get(f"{real.url}/api/oauth2", text=lambda request, context: back(request, context))
        mocker.post(f"{real.url}/api/oauth2/Token", json={"access_token": "mocked"})
        mocker.get(f"{real.url}{PATH}", json=["mocked"])
        AIRiskToken.objects.update(failed_at=None)
        assert call(mia) == ["mocked"]
        assert mocker.request_history[-1].headers["Authorization"] == "Bearer mocked"


def back(request: Any, context: Any) -> str:
    context.status_code = 302
    state = re.search("state=([^&]+)", request.url, re.IGNORECASE)
    context.headers["Location"] = f"https://app.example.com/airisk/callback/?code=c&state={state and state[1]}"
    return ""


def test_responses_sees_all_calls(real: Server, mia: User) -> None:
    give_token(mia, ends_in=-60)
    with responses.RequestsMock(), pytest.raises(AIRiskUnavailable):
        call(mia)


def test_vcr_sees_all_calls(real: Server, mia: User, tmp_path: Path) -> None:
    for way in (call, call_on_a_loop):
        AIRiskToken.objects.all().delete()
        give_token(mia, ends_in=-60)
        with (
            vcr.use_cassette(tmp_path / "nothing.yaml", record_mode="none"),
            pytest.raises((AIRiskUnavailable, vcr.errors.CannotOverwriteExistingCassetteException)),
        ):
            way(mia)


@pytest.mark.parametrize("way", [call, call_on_a_loop])
def test_vcr_records_and_replays_a_cassette(
    airisk: World, mia: User, tmp_path: Path, way: Callable[[User], Any]
) -> None:
    give_token(mia, ends_in=-60)
    with vcr.use_cassette(tmp_path / "whole.yaml"):
        recorded = way(mia)
    assert "client_secret" in (tmp_path / "whole.yaml").read_text()
    calls = len(airisk.journal)
    for mode in ("once", "none"):
        with vcr.use_cassette(tmp_path / "call.yaml", record_mode=mode, filter_headers=["authorization"]):
            assert way(mia) == recorded
    assert len(airisk.journal) == calls + 1
    assert str(AIRiskToken.objects.get().access_token) not in (tmp_path / "call.yaml").read_text()


def test_vcr_records_calls_of_other_sessions(airisk: World, mia: User, tmp_path: Path, settings: Any) -> None:
    give_token(mia, ends_in=-60)
    url = f"{settings.AIRISK_OAUTH['default']['BASE_URL']}{PATH}"
    with vcr.use_cassette(tmp_path / "call.yaml", filter_headers=["authorization"]):
        assert requests.get(url, auth=AIRiskAuth.for_user(mia), timeout=5).status_code == 200
    with vcr.use_cassette(tmp_path / "call.json", serializer="json"):
        requests.get(url, auth=AIRiskAuth.for_user(mia), timeout=5)
    assert json.loads((tmp_path / "call.json").read_text())["interactions"]
