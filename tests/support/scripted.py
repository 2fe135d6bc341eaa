"""Calls of the API on both sides, and an AIRisk that answers each of them with a script."""

import re
import socket
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import httpx2
import pytest
import requests
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User

from airisk_oauth import AIRiskSession, AsyncAIRiskClient
from airisk_oauth.exceptions import AIRiskUnavailable
from tests.support.options import set_option
from tests.support.wire import TOO_LONG, Script, Serve, Server, http, read_request, saying


def plain(body: bytes = b"[]", status: str = "200 OK", *headers: str) -> bytes:
    """Return a response after which the connection stays open."""
    return http(body, status, *headers).replace(b"Connection: close\r\n", b"")


class ScriptedAIRisk:
    """Issues a token, answers 401 to the token "refused", and other calls by the script for their path.

    :ivar scripts: what happens on a call, by path.
    :ivar requests: all requests, in order.
    :ivar dies: if set, what happens when a connection is used again.
    """

    def __init__(self, serve: Serve, settings: Any) -> None:
        self.scripts: dict[str, Script] = {}
        self.requests: list[bytes] = []
        self.dies: Script | None = None
        self.refused: Script = saying(plain(b"", "401 Unauthorized"))
        self.server: Server = serve(self._script)
        set_option(settings, BASE_URL=self.server.url)

    def paths(self) -> list[str]:
        return [request.split()[1].decode().partition("?")[0] for request in self.requests]

    def _script(self, sock: socket.socket) -> None:
        request = self.server.seen[-1]
        while request:
            self.requests.append(request)
            self._answer(request)(sock)
            request = read_request(sock)
            if request and self.dies is not None:
                self.requests.append(request)
                return self.dies(sock)
        return None

    def _answer(self, request: bytes) -> Script:
        path, _, query = request.split()[1].decode().partition("?")
        if path == "/api/oauth2":
            back = urlencode({"code": "code", "state": re.search("state=([^&]+)", query)[1]})  # type: ignore[index]
            location = f"Location: https://app.example.com/airisk/callback/?{back}"
            return saying(plain(b"", "302 Found", location))
        if path == "/api/oauth2/Token":
            return saying(plain(b'{"access_token": "renewed"}'))
        if b"Bearer refused" in request:
            return self.refused
        return self.scripts.get(path, saying(plain()))


@pytest.fixture
def scripted(serve: Serve, settings: Any) -> ScriptedAIRisk:
    return ScriptedAIRisk(serve, settings)


def head(status: str, *headers: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode()


Ask = Callable[..., Any]


def ask_blocking(user: User, method: str, path: str, *, follow: bool = False, **options: Any) -> requests.Response:
    with AIRiskSession.for_user(user) as session:
        return session.request(method, path, allow_redirects=follow, **options)


def ask_on_a_loop(user: User, method: str, path: str, *, follow: bool = False, **options: Any) -> httpx2.Response:
    @async_to_sync
    async def main() -> httpx2.Response:
        async with AsyncAIRiskClient.for_user(user) as client:
            return await client.request(method, path, follow_redirects=follow, **options)

    return main()


both = pytest.mark.parametrize("ask", [ask_blocking, ask_on_a_loop])


def unavailable(work: Callable[[], Any]) -> str:
    """Return the message of the error that a call raises, after checking that it does so in time."""
    began = time.monotonic()
    with pytest.raises(AIRiskUnavailable) as caught:
        work()
    assert time.monotonic() - began < TOO_LONG / 2
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return str(caught.value)
