"""Connections to the OAuth endpoints that are used again, and flows that start over if one of them is lost."""

import socket
from collections.abc import Callable
from urllib.parse import parse_qsl, urlencode

import pytest

from airisk_oauth.exceptions import AIRiskUnavailable
from airisk_oauth.oauth.transport import OAuthClient
from tests.support.oauth_clients import GRANT, REDIRECT_URI, MakeClient, error_of, exchange, obtain
from tests.support.wire import Script, Serve, read_request, reset, saying, silent

pytestmark = pytest.mark.usefixtures("nothing_in_the_environment")


def test_connection_is_reused_and_finally_closed(serve: Serve, make_client: MakeClient) -> None:
    def script(sock: socket.socket) -> None:
        answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(GRANT)}\r\n\r\n".encode() + GRANT
        sock.sendall(answer)
        assert read_request(sock).startswith(b"POST ")
        sock.sendall(answer)
        closed.append(sock.recv(1) == b"")

    closed: list[bool] = []
    server = serve(script)
    with make_client(server.url) as airisk:
        assert [exchange(airisk).access_token for _ in range(2)] == ["a-token"] * 2
    server.stop()
    assert (len(server.seen), closed) == (1, [True])


class Gateway:
    """AIRisk behind a gateway that keeps connections open, and fails some requests.

    :param fails: called with a request and its number on its connection; returns what to do instead of responding.
    """

    def __init__(self, serve: Serve, fails: Callable[[bytes, int], Script | None]) -> None:
        self.fails = fails
        self.requests: list[bytes] = []
        self.connections = 0
        self.server = serve(self._script)

    def sent(self, method: str) -> list[dict[str, str]]:
        """Return the parameters of each request that was sent by this method."""
        found = [request for request in self.requests if request.startswith(method.encode())]
        texts = [(request.split()[1].partition(b"?")[2] or request.partition(b"\r\n\r\n")[2]) for request in found]
        return [dict(parse_qsl(text.decode())) for text in texts]

    def _script(self, sock: socket.socket) -> None:
        self.connections += 1
        request, number = self.server.seen[-1], 1
        while request:
            self.requests.append(request)
            failing = self.fails(request, number)
            if failing is not None:
                return failing(sock)
            sock.sendall(self._answer(request))
            request, number = read_request(sock), number + 1
        return None

    def _answer(self, request: bytes) -> bytes:
        if request.startswith(b"POST"):
            return f"HTTP/1.1 200 OK\r\nContent-Length: {len(GRANT)}\r\n\r\n".encode() + GRANT
        back = urlencode({"code": f"code-{len(self.requests)}", "state": self.sent("GET")[-1]["state"]})
        return f"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: {REDIRECT_URI}?{back}\r\n\r\n".encode()


def when_reused(method: bytes, failing: Script) -> Callable[[bytes, int], Script | None]:
    """Fail every request by this method that comes on a reused connection."""
    return lambda request, number: failing if number > 1 and request.startswith(method) else None


@pytest.mark.parametrize("loses", [saying(), reset], ids=["close", "reset"])
def test_flow_starts_over_with_another_code(serve: Serve, make_client: MakeClient, loses: Script) -> None:
    gateway = Gateway(serve, when_reused(b"POST", loses))
    with make_client(gateway.server.url) as airisk:
        assert obtain(airisk).access_token == "a-token"
        assert len({form["code"] for form in gateway.sent("POST")}) == len(gateway.sent("POST")) == 2
        assert len({query["state"] for query in gateway.sent("GET")}) == len(gateway.sent("GET")) == 2
        # By now the client knows that such connections are lost.
        assert obtain(airisk).access_token == "a-token"
        assert (len(gateway.requests), gateway.connections) == (6, 5)


def test_flow_starts_over_on_a_new_connection(serve: Serve, make_client: MakeClient) -> None:
    gateway = Gateway(serve, when_reused(b"GET", saying()))
    with make_client(gateway.server.url) as airisk:
        assert [obtain(airisk).access_token for _ in range(2)] == ["a-token"] * 2
    assert [len(gateway.sent(method)) for method in ("GET", "POST")] == [3, 2]


def test_flow_starts_over_only_once(serve: Serve, make_client: MakeClient) -> None:
    gateway = Gateway(serve, lambda request, _number: saying() if request.startswith(b"POST") else None)
    with make_client(gateway.server.url) as airisk:
        assert type(error_of(obtain, airisk)) is AIRiskUnavailable
    assert [len(gateway.sent(method)) for method in ("GET", "POST")] == [2, 2]


def test_silent_reused_connection_fails_the_flow(serve: Serve, make_client: MakeClient) -> None:
    gateway = Gateway(serve, when_reused(b"POST", silent))
    with make_client(gateway.server.url, TIMEOUT=(0.5, 0.5)) as airisk:
        assert type(error_of(obtain, airisk)) is AIRiskUnavailable
    assert len(gateway.sent("POST")) == 1


def test_code_of_a_browser_is_not_sent_again(serve: Serve, make_client: MakeClient) -> None:
    gateway = Gateway(serve, when_reused(b"POST", saying()))
    with make_client(gateway.server.url) as airisk:
        exchange(airisk)
        assert type(error_of(exchange, airisk)) is AIRiskUnavailable
    assert len(gateway.sent("POST")) == 2


@pytest.mark.parametrize("make_client", [OAuthClient], indirect=True)
def test_half_an_answer_starts_no_new_flow(serve: Serve, make_client: MakeClient) -> None:
    """httpx2 does not tell whether part of an answer came; another flow does no harm, because it has another code."""
    gateway = Gateway(serve, when_reused(b"POST", saying(b"HTT")))
    airisk = make_client(gateway.server.url)
    assert type(error_of(obtain, airisk)) is AIRiskUnavailable
    assert len(gateway.sent("POST")) == 1
