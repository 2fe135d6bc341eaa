"""A second AIRisk, written from what is known about AIRisk's protocol, without any code of the sandbox.

It can behave differently where the sandbox and the package make the same assumption.
"""

import json
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

Answer = tuple[int, dict[str, str], bytes]
CALLBACK: Final = "https://app.example.com/airisk/callback/"
AUTHORIZE: Final = ("GET", "/api/oauth2")
TOKEN: Final = ("POST", "/api/oauth2/Token")
AGENTS: Final = ("GET", "/api/Chat/ListAgents")


def answer_json(content: object, status: int = 200, kind: str = "application/json") -> Answer:
    return status, {"Content-Type": f"{kind}; charset=utf-8"}, json.dumps(content).encode()


def answer_text(text: str, status: int = 400) -> Answer:
    return status, {"Content-Type": "text/plain; charset=utf-8"}, text.encode()


def page(text: str = "Sign in", status: int = 200) -> Answer:
    return status, {"Content-Type": "text/html"}, f"<!DOCTYPE html><title>{text}</title>".encode()


def redirect(location: str) -> Answer:
    return 302, {"Location": location}, b""


def problem(status: int = 401, title: str = "Unauthorized") -> Answer:
    trace = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00"
    content = {"type": "about:blank", "title": title, "status": status, "traceId": trace}
    return answer_json(content, status, "application/problem+json")


@dataclass
class SecondAIRisk:
    """Its data and behaviour.

    :ivar refuses_by: turns the plain refusal of the authorization endpoint into another form.
    :ivar answers: by method and path, functions of a request's parameters that replace the usual answer.
    :ivar tokens: the owner of each token issued so far: a userid, or ``None`` for the application.
    :ivar requests: method, path and parameters of each request.
    """

    client_id: str = "client-1"
    client_secret: str = "secret-1"
    redirect_uris: tuple[str, ...] = (CALLBACK,)
    users: tuple[str, ...] = ("user_42", "user_7")
    codes_carry_user: bool = False
    asks_for_known_userid: bool = False
    codes_reusable: bool = False
    any_redirect_uri: bool = False
    returns_state: bool = True
    has_offset: bool = True
    refuses_all_alike: bool = False
    unknown_user: Callable[[], Answer] = lambda: answer_text("Invalid userid")
    refuses_by: Callable[[Answer], Answer] = lambda plain: plain
    answers: dict[tuple[str, str], Callable[[dict[str, str]], Answer]] = field(default_factory=dict)
    agents: list[dict[str, Any]] = field(default_factory=lambda: [{"id": "a", "name": "Reader", "botSuggestion": []}])
    date: str | None = None
    url: str = ""
    codes: dict[str, tuple[str, str | None]] = field(default_factory=dict)
    tokens: dict[str, str | None] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def answer(self, method: str, path: str, given: dict[str, str], bearer: str) -> Answer:
        self.requests.append((method, path, given))
        if (method, path) in self.answers:
            return self.answers[method, path](given)
        if (method, path) == ("GET", "/api/oauth2"):
            return self.authorize(given)
        if (method, path) == ("POST", "/api/oauth2/Token"):
            return self.trade(given)
        if path.startswith("/api/"):
            return self.call(path, bearer)
        return page("AIRisk") if path == "/" else page("Nothing here", 404)

    def authorize(self, given: dict[str, str]) -> Answer:
        refusal = self.refusal(given)
        if refusal is not None:
            return self.refuses_by(problem() if self.refuses_all_alike else refusal)
        code = secrets.token_hex(16)
        self.codes[code] = given["redirect_uri"], given.get("userid")
        query = {"code": code, **({"state": given["state"]} if self.returns_state and "state" in given else {})}
        return redirect(f"{given['redirect_uri']}?{urlencode(query)}")

    def refusal(self, given: dict[str, str]) -> Answer | None:
        if not given.get("client_id"):
            return answer_text("Invalid client_id")
        if given["client_id"] != self.client_id:
            return problem()
        if given.get("redirect_uri") not in self.redirect_uris:
            return answer_text("The request is not valid")
        if "userid" in given and given["userid"] not in self.users:
            return self.unknown_user()
        return None

    def trade(self, given: dict[str, str]) -> Answer:
        if (given.get("client_id"), given.get("client_secret")) != (self.client_id, self.client_secret):
            return problem()
        code = given.get("code", "")
        redirect_uri, userid = self.codes.get(code, ("", None))
        is_known = code in self.codes
        if not self.codes_reusable:
            self.codes.pop(code, None)
        named = given.get("userid")
        if self.asks_for_known_userid and named not in self.users:
            return answer_text("Invalid userid")
        if not is_known or not (self.any_redirect_uri or given.get("redirect_uri") == redirect_uri):
            return answer_text("Invalid Code")
        if not self.codes_carry_user and named != userid:
            return answer_text("Invalid Code")
        token = f"eyJ.token-canary.{secrets.token_hex(16)}"
        self.tokens[token] = userid
        ends = datetime.now(UTC) + timedelta(hours=1)
        written = ends.strftime("%Y-%m-%dT%H:%M:%S") + ("Z" if self.has_offset else ".1234567")
        return answer_json({"access_token": token, "expiration": written})

    def call(self, path: str, bearer: str) -> Answer:
        if bearer not in self.tokens:
            return problem()
        userid = self.tokens[bearer]
        if userid is None:
            return problem(403, "Forbidden")
        if path == "/api/Chat/ListAgents":
            return answer_json(self.agents)
        return answer_json([{"id": "c", "title": f"Of {userid}", "userID": userid}])


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "_Server"

    def do_GET(self) -> None:
        self.respond({})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        kind = self.headers.get("Content-Type", "")
        if kind.startswith("application/json"):
            self.respond(json.loads(body))
        elif kind.startswith("multipart/"):
            message = BytesParser().parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body)
            parts: Any = message.get_payload()
            self.respond({part.get_param("name", header="Content-Disposition"): part.get_payload() for part in parts})
        else:
            self.respond(dict(parse_qsl(body.decode(), keep_blank_values=True)))

    def respond(self, form: dict[str, str]) -> None:
        url = urlsplit(self.path)
        given = form or dict(parse_qsl(url.query, keep_blank_values=True))
        bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
        airisk = self.server.airisk
        status, headers, body = airisk.answer(str(self.command), url.path, given, bearer)
        self.send_response_only(status)
        for name, value in {"Date": airisk.date or self.date_time_string(), **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Log nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, airisk: SecondAIRisk) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.airisk = airisk
        airisk.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *args: Any) -> None:
        """Ignore errors: in some tests the client gives up waiting."""


@contextmanager
def second_airisk(settings: Any, **behaviour: Any) -> Iterator[SecondAIRisk]:
    """Run it, and make it answer for the default deployment."""
    airisk = SecondAIRisk(**behaviour)
    with _Server(airisk) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        default = settings.AIRISK_OAUTH["default"]
        settings.AIRISK_OAUTH = {**settings.AIRISK_OAUTH, "default": {**default, "BASE_URL": airisk.url}}
        try:
            yield airisk
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def other_airisk(settings: Any) -> Iterator[SecondAIRisk]:
    """The second AIRisk, for the default deployment."""
    with second_airisk(settings) as airisk:
        yield airisk
