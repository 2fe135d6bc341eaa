"""AIRisk's chat API for synchronous code. The rules are in :mod:`.chat_rules`."""

from contextlib import AbstractContextManager
from typing import IO, TYPE_CHECKING, Any, Self

import requests
from urllib3.exceptions import HTTPError

from ..exceptions import AIRiskUnavailable
from ..oauth.calls import run
from ..wire.adapter import timed_response
from ..wire.failures import CallFailure
from .call_log import Unlogged, call_of
from .chat_answers import FIRST_TEXT_TIMEOUT, AnswerSoFar
from .chat_calls import PART, ChatRequest, Reply
from .chat_rules import ChatRules, Pages, question

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from .chat_types import Agent, Conversation, Feedback


class Chat:
    """A user's agents and conversations, as ``AIRiskSession.chat``. Provisional: AIRisk does not document these calls.

    In addition to what every call raises, these raise ``AIRiskRefused`` for a 4xx, ``AIRiskUnavailable`` for a 5xx or
    429, and ``AIRiskInvalidResponse`` for an answer in an unknown format.

    :param timeouts: seconds to connect, and to read.
    """

    def __init__(self, session: requests.Session, timeouts: tuple[float, float]) -> None:
        self._call = BlockingCalls(session, timeouts)
        self._rules = ChatRules(self._call, timeouts[1])

    def agents(self) -> "list[Agent]":
        """Return the agents that the user may ask, or an empty list."""
        return run(self._rules.agents())

    def conversations(self) -> "Iterator[Conversation]":
        """Yield all of the user's conversations, without messages. They are fetched 50 at a time, as needed."""
        pages = Pages(self._rules)
        while page := run(pages.next()):
            yield from page

    def conversation(self, conversation_id: "str | UUID") -> "Conversation":
        """Return a conversation with its messages."""
        return run(self._rules.conversation(conversation_id))

    def create_conversation(self, agent_id: "str | UUID", title: str) -> "Conversation":
        """Start a conversation with an agent, and return it."""
        return run(self._rules.create_conversation(agent_id, title))

    def ask(
        self, conversation_id: "str | UUID", text: str, *, first_text_timeout: float = FIRST_TEXT_TIMEOUT
    ) -> "Answer":
        """Ask the agent of a conversation. The question is sent when the answer's ``with`` block begins.

        :param first_text_timeout: seconds to wait for the first piece of text, and then for each further one.
        """
        return Answer(self._call, question(conversation_id, text, first_text_timeout), first_text_timeout)

    def attach(self, conversation_id: "str | UUID", file: IO[bytes] | bytes | Any, filename: str | None = None) -> None:
        """Add a whole file to a conversation. AIRisk's own client sends files of at most 35 MB.

        :param file: a file that is open in binary mode, an upload, or bytes; it is read into memory.
        :param filename: by default the file's own name, without its folder.
        :raises ValueError: there is no filename.
        """
        run(self._rules.attach(conversation_id, file, filename))

    def rate(self, conversation_id: "str | UUID", message_id: "str | UUID", feedback: "Feedback") -> None:
        """Rate a message: ``"Like"`` or ``"Dislike"``.

        :raises ValueError: the feedback is something else.
        """
        run(self._rules.rate(conversation_id, message_id, feedback))


class Answer(AnswerSoFar, AbstractContextManager["Answer"]):
    """An agent's answer. Iterate over it to get the text, piece by piece, while the agent writes it.

    Use it in a ``with`` statement: leaving that early stops the agent. If the stream breaks off, the iteration raises
    ``AIRiskUnavailable`` after the last piece, and for an unknown format ``AIRiskInvalidResponse``.
    """

    def __enter__(self) -> Self:
        run(self._begin())
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        if run(self._is_over()):
            raise StopIteration
        return self._take()

    def close(self) -> None:
        """Close the call to AIRisk, which stops the agent."""
        run(self._end())


class BlockingCalls:
    """Makes calls, and blocks the thread meanwhile."""

    def __init__(self, session: requests.Session, timeouts: tuple[float, float]) -> None:
        self._session = session
        self._timeouts = timeouts

    async def __call__(self, request: ChatRequest) -> Reply:
        connect, read = self._timeouts
        prepared, options = prepare(self._session, request)
        call = call_of(prepared).__enter__()
        try:
            timeout = (connect, request.patience or read)
            response = self._session.send(prepared, allow_redirects=False, timeout=timeout, **options)
        except BaseException as error:
            call.close(error)
            raise
        return BlockingReply(response, call)


def prepare(session: requests.Session, request: ChatRequest) -> tuple[requests.PreparedRequest, dict[str, Any]]:
    """Return the signed request, and with which options it is sent."""
    prepared = session.prepare_request(
        requests.Request(
            request.method,
            request.path,
            params=request.params,
            json=request.json,
            files=request.files,
            headers=dict(request.headers),
        )
    )
    options: Any = session.merge_environment_settings(prepared.url, {}, True, None, None)  # noqa: FBT003
    return prepared, dict(options)


class BlockingReply:
    """A reply whose body is read blocking.

    :param call: kept open until the reply is closed.
    """

    def __init__(self, response: requests.Response, call: Unlogged) -> None:
        self._response, self._call = response, call
        self._timed = timed_response(response)
        call.note_status(response.status_code)
        self.status, self.headers = response.status_code, response.headers
        self.token = str(response.request.headers.get("Authorization", "")).removeprefix("Bearer ")

    async def read(self, ends: float) -> bytes:
        return self._read(ends)

    async def close(self) -> None:
        self._response.close()
        self._call.close()

    def _read(self, ends: float) -> bytes:
        failure = CallFailure(OSError, HTTPError, hidden=(BaseException,))
        with failure:
            if self._timed is not None:
                self._timed.set_deadline(ends)
            data: bytes = self._response.raw.read1(PART, decode_content=False)
            return data
        self._response.close()
        self._call.note_failure(AIRiskUnavailable)
        raise AIRiskUnavailable(f"AIRisk's answer broke off ({failure.cause}).")
