"""A small AIRisk on a port of its own, written from the documentation, without code of the package or its sandbox.

Source: https://docs.aicrisk.com/api-overview/airisk-api-oauth2-authentication
"""

import json
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

#: An agent's answer, as AIRisk streams it.
ANSWER = b'{"UpdateKind": 21, "Text": "Because."}\n{"UpdateKind": 6}\n[DONE]\n'
#: Every token is refused for this call.
FORBIDDEN = "/api/Forbidden"


class Call(NamedTuple):
    """A call of the API; ``userid`` is the token's, "" for the application's, ``None`` without a valid token."""

    userid: str | None
    path: str
    headers: dict[str, str]


class AIRisk(ThreadingHTTPServer):
    """AIRisk's data and behaviour.

    :ivar latency: seconds before the token endpoint answers.
    :ivar refuses: whether the authorization endpoint redirects with an error.
    :ivar is_down: whether the authorization endpoint answers 503, with a ``Retry-After`` of 7 seconds.
    :ivar granted: the userid of every issued token, oldest first.
    :ivar has_granted: set when a token is issued.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.latency = 0.0
        self.refuses = False
        self.is_down = False
        self.granted: list[str] = []
        self.has_granted = threading.Event()
        self.calls: list[Call] = []
        self.codes: dict[str, tuple[str, str]] = {}
        self.tokens: dict[str, str] = {}
        self._numbers = count()

    def new_code(self, userid: str, redirect_uri: str) -> str:
        """Return a code that can be exchanged for one token of this userid."""
        code = f"code-{next(self._numbers)}"
        self.codes[code] = userid, redirect_uri
        return code

    def new_token(self, userid: str) -> str:
        """Return a token that contains its userid."""
        token = f"token-of-{userid}-{next(self._numbers)}"
        self.tokens[token] = userid
        return token

    def refuse_all_tokens(self) -> None:
        """Answer 401 to every token issued so far, although none has expired."""
        self.tokens.clear()


class _Handler(BaseHTTPRequestHandler):
    server: AIRisk
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path == "/api/oauth2":
            self._authorize(dict(parse_qsl(parts.query)))
        else:
            self._call(parts.path)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.path == "/api/Chat/AskAgent":
            self._call(self.path)
            return
        form = dict(parse_qsl(body))
        time.sleep(self.server.latency)
        userid = form.get("userid", "")
        if self.server.codes.pop(form["code"], None) != (userid, form["redirect_uri"]):
            self._answer(400, b"Invalid Code", "text/plain")
            return
        self.server.granted.append(userid)
        self.server.has_granted.set()
        expiration = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        self._answer_json(200, {"access_token": self.server.new_token(userid), "expiration": expiration})

    def _authorize(self, query: dict[str, str]) -> None:
        if self.server.is_down:
            self._answer(503, b"", "text/html", **{"Retry-After": "7"})
            return
        back = {"state": query["state"], "error": "access_denied"}
        if not self.server.refuses:
            back = {
                "state": query["state"],
                "code": self.server.new_code(query.get("userid", ""), query["redirect_uri"]),
            }
        self._answer(302, b"", "text/html", Location=f"{query['redirect_uri']}?{urlencode(back)}")

    def _call(self, path: str) -> None:
        userid = self.server.tokens.get(self.headers.get("Authorization", "").removeprefix("Bearer "))
        self.server.calls.append(Call(userid, path, dict(self.headers.items())))
        if userid is None or path == FORBIDDEN:
            self._answer_json(401, {"title": "Unauthorized", "status": 401, "traceId": "00-676e-01-00"})
        elif path == "/api/Chat/AskAgent":
            self._answer(200, ANSWER, "application/json")
        else:
            self._answer_json(200, [{"id": "1", "userID": userid}])

    def _answer_json(self, status: int, content: object) -> None:
        self._answer(status, json.dumps(content).encode(), "application/json")

    def _answer(self, status: int, body: bytes, content_type: str, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": content_type, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def start() -> AIRisk:
    """Serve an AIRisk from a thread until the process ends."""
    server = AIRisk()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
