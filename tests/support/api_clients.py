"""Clients of AIRisk's API, both called in the same way, and another server that must never get a token."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Self

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User

from airisk_oauth import AIRiskSession, AsyncAIRiskClient
from airisk_oauth.sandbox.world import World
from tests.support.people import live_token


class BlockingAsyncClient:
    """The asynchronous client, each call of it on an event loop of its own."""

    def __init__(self, client: AsyncAIRiskClient) -> None:
        self.client, self.deployment = client, client.deployment
        # As requests does by default.
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


with_each_client = pytest.mark.parametrize("client_class", [AIRiskSession, BlockingAsyncClient])


@pytest.fixture
def session(airisk: World, mia: User) -> Iterator[AIRiskSession]:
    """Return Mia's session, with a token that AIRisk accepts."""
    live_token(airisk, mia)
    with AIRiskSession.for_user(mia) as session:
        yield session


@pytest.fixture(params=[AIRiskSession, BlockingAsyncClient])
def api_client(request: pytest.FixtureRequest, airisk: World, mia: User) -> Iterator[Any]:
    """Return Mia's session or asynchronous client, with a token that AIRisk accepts."""
    live_token(airisk, mia)
    with request.param.for_user(mia) as client:
        yield client


class OtherServer(ThreadingHTTPServer):
    """A server of another origin. It answers 401, or with a redirect.

    :ivar connections: how many connections it has accepted.
    :ivar seen: path and ``Authorization`` of every request.
    :ivar redirects_to: where it redirects to, if anywhere.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _OtherServerHandler)
        self.connections = 0
        self.redirects_to = ""
        self.seen: list[tuple[str, str | None]] = []
        self.host = f"127.0.0.1:{self.server_port}"

    def get_request(self) -> tuple[Any, Any]:
        self.connections += 1
        return super().get_request()


class _OtherServerHandler(BaseHTTPRequestHandler):
    server: OtherServer

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers.get("Authorization")))
        self.send_response(302 if self.server.redirects_to else 401)
        self.send_header("Location", self.server.redirects_to)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Log nothing."""


@pytest.fixture
def other_server() -> Iterator[OtherServer]:
    with OtherServer() as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
