"""The fake AIRisk itself: the sandbox's rules for the deployments in the settings, and a record of all requests.

It is independent of the HTTP client and the database: :meth:`AIRiskServer.receive` takes requests from any client.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from django.http import HttpResponse, StreamingHttpResponse
from django.utils import timezone
from django.utils.html import format_html

from .. import conf
from ..client.chat_types import AnswerStatus
from ..conf import DEFAULT_ALIAS
from ..oauth.deployment import Deployment, origin_of
from ..sandbox.answers import Refusal, answer_json, outage, problem
from ..sandbox.registry import clients_of
from ..sandbox.server import AuthorizationServer
from ..sandbox.world import Caller, World

_PAGE: Final = '<!DOCTYPE html><html lang="en"><title>AIRisk</title><a href="{}">Continue</a></html>'

#: The one call in AIRisk's documentation. Unless the test sets an answer, the user has no conversations.
_DOCUMENTED: Final = "GET", "/api/GetConversations"

#: AIRisk's chat API: where questions are sent, and by which kind of update an answer ends.
_ASK: Final = "/api/Chat/AskAgent"
_ENDS: Final[dict[AnswerStatus, int]] = {"completed": 6, "incomplete": 7, "failed": 8}

Answer = HttpResponse | StreamingHttpResponse


@dataclass(eq=False)
class RecordedCall:
    """A request that reached AIRisk.

    :ivar deployment: alias of the deployment.
    :ivar path: below ``BASE_URL``, without the query.
    :ivar userid: the ``userid`` of the token's owner; ``""`` for the application, ``None`` without a valid token.
    :ivar params: the query; of a repeated parameter, the last value.
    :ivar status: of the response; ``None`` before there is one.
    """

    deployment: str
    method: str
    path: str
    userid: str | None
    params: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    status: int | None = None

    @property
    def json(self) -> Any:
        """The body, parsed as JSON."""
        return json.loads(self.body)


class AIRiskServer:
    """A working AIRisk for every deployment in ``AIRISK_OAUTH``, which is read on every request.

    :ivar calls: calls of the API, in order.
    :ivar authorization_requests: requests to the authorization endpoint, in order.
    :ivar token_requests: requests to the token endpoint, in order.
    """

    def __init__(self) -> None:
        self.calls: list[RecordedCall] = []
        self.authorization_requests: list[RecordedCall] = []
        self.token_requests: list[RecordedCall] = []
        self._answers: dict[tuple[str, str, str], Callable[[RecordedCall], Answer]] = {}
        self._expired: set[str] = set()
        self._world = World()
        # Django's clock, which a test may set.
        self._world.clock = lambda: timezone.now().timestamp()
        self.recover()

    def answer(
        self,
        method: str,
        path: str,
        answer: Answer | Callable[[RecordedCall], Answer] | None = None,
        *,
        json: Any = None,
        status: int = 200,
        deployment: str = DEFAULT_ALIAS,
    ) -> None:
        """Set what the API answers to a call with a valid token; this replaces an earlier answer.

        :param path: below ``BASE_URL``, without the query.
        :param answer: a Django response, or a function that takes a :class:`RecordedCall` and returns one; without it,
            ``json`` (``None``: no body) and ``status`` are used.
        """
        if answer is None:
            answer = HttpResponse() if json is None else answer_json(json)
            answer.status_code = status
        ready = answer
        self._answers[deployment, method, path] = ready if callable(ready) else lambda call: ready

    def answer_question(
        self, *pieces: str, status: AnswerStatus = "completed", deployment: str = DEFAULT_ALIAS
    ) -> None:
        """Set what an agent answers to every question, as pieces of text, and how the answer ends."""
        updates = [*({"UpdateKind": 21, "Text": piece} for piece in pieces), {"UpdateKind": _ENDS[status]}]
        body = "".join(f"{json.dumps(update)}\n" for update in updates) + "[DONE]\n"
        self.answer("POST", _ASK, HttpResponse(body, content_type="text/event-stream"), deployment=deployment)

    def refuse_tokens(self) -> None:
        """Answer 401 to all tokens issued so far, although they have not expired."""
        self._world.end_all_tokens()

    def refuse(self, error: str = "access_denied") -> None:
        """Refuse every authorization from now on, with a redirect with this error (RFC 6749, section 4.1.2.1)."""
        self._error = error

    def show_page(self) -> None:
        """Show a page at the authorization endpoint from now on, so that only a person in a browser can get a token."""
        self._shows_page = True

    def go_down(self, *, unreachable: bool = False) -> None:
        """Answer 503 to every request from now on, or with ``unreachable`` do not answer at all."""
        self._is_down, self._is_unreachable = True, unreachable

    def recover(self) -> None:
        """Undo ``refuse``, ``show_page`` and ``go_down``."""
        self._error, self._shows_page, self._is_down, self._is_unreachable = "", False, False, False

    def receive(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        """Return the status, the headers and the body that answer a request to one of AIRisk's origins.

        :param headers: a mapping that ignores the case of its keys.
        :raises ConnectionRefusedError: AIRisk is set to be unreachable.
        :raises AssertionError: the test has set no answer for this call of the API.
        """
        if self._is_unreachable:
            raise ConnectionRefusedError("AIRisk is unreachable.")
        here, parts = deployments_at(url), urlsplit(url)
        path, query = parts.path.removeprefix(_prefix(here[0])), _fields(parts.query)
        caller: Caller | None
        if (method, path) in [("GET", each.authorize_path) for each in here]:
            log, caller, decide = self.authorization_requests, _claimed_by(query), self._authorize
        elif (method, path) in [("POST", each.token_path) for each in here]:
            log, caller, decide = self.token_requests, _claimed_by(_fields(body.decode())), _exchange
        else:
            log, caller, decide = self.calls, self._caller_of(headers), self._answer_call
        owner = next((each for each in here if caller is not None and each.client_id == caller.client_id), None)
        userid = None if caller is None or owner is None else caller.userid or ""
        call = RecordedCall((owner or here[0]).alias, method, path, userid, query, body)
        log.append(call)
        try:
            if self._is_down:
                raise outage(None)
            response = decide(AuthorizationServer(self._world, _clients_of(here), bool), call)
        except Refusal as refusal:
            response = refusal.response
        call.status = response.status_code
        return response.status_code, dict(response.items()), response.getvalue()

    def _authorize(self, server: AuthorizationServer, call: RecordedCall) -> Answer:
        back = server.redirect_back(server.grant(call.params), call.params, self._error)
        return HttpResponse(format_html(_PAGE, back["Location"])) if self._shows_page else back

    def _answer_call(self, server: AuthorizationServer, call: RecordedCall) -> Answer:
        if call.userid is None:
            raise problem(401)
        answer = self._answers.get((call.deployment, call.method, call.path))
        if answer is None and call.userid and (call.method, call.path) == _DOCUMENTED:
            return answer_json([])
        if answer is None:
            raise AssertionError(f"There is no answer for {call}. Set one with airisk.answer() before the call.")
        return answer(call)

    def _caller_of(self, headers: Mapping[str, str]) -> Caller | None:
        token = headers.get("Authorization", "").removeprefix("Bearer ")
        return None if token in self._expired else self._world.caller_of(token)


def deployments_at(url: str) -> list[Deployment]:
    """Return the deployments whose base URL is the longest match: several can share a host, or even an AIRisk."""
    origin, path = origin_of(url), urlsplit(url).path
    here = [each for each in conf.usable(conf.aliases()) if each.origin == origin]
    inside = [_prefix(each) for each in here if path.startswith(f"{_prefix(each)}/")]
    return [each for each in here if not inside or _prefix(each) == max(inside, key=len)]


def _prefix(deployment: Deployment) -> str:
    return urlsplit(deployment.base_url).path


def _clients_of(deployments: list[Deployment]) -> Mapping[str, Mapping[str, str]]:
    return clients_of((each.client_id, each.client_secret, each.redirect_uri) for each in deployments)


def _exchange(server: AuthorizationServer, call: RecordedCall) -> Answer:
    return server.exchange(_fields(call.body.decode()))


def _fields(text: str) -> dict[str, str]:
    return dict(parse_qsl(text, keep_blank_values=True))


def _claimed_by(given: Mapping[str, str]) -> Caller:
    return Caller(given.get("client_id", ""), given.get("userid"))
