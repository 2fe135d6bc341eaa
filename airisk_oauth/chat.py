"""AIRisk's chat API: answers that are streamed to browsers, and the types of conversations and messages.

``AIRiskSession.chat`` and ``AsyncAIRiskClient.chat`` make the calls. All of this is provisional, because AIRisk does
not document its chat API.
"""

from typing import TYPE_CHECKING, Any, Final

from django.http import StreamingHttpResponse

from .client.chat_answers import FIRST_TEXT_TIMEOUT
from .client.chat_rules import question
from .client.chat_types import Agent, AnswerStatus, Citation, Conversation, Feedback, Message, Suggestion
from .conf import DEFAULT_ALIAS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from uuid import UUID

    from .client.async_chat import AsyncAnswer, AsyncChat
    from .client.chat import Answer, Chat
    from .client.chat_calls import ChatRequest

__all__ = [
    "Agent",
    "Answer",
    "AnswerStatus",
    "AsyncAnswer",
    "AsyncChat",
    "Chat",
    "Citation",
    "Conversation",
    "Feedback",
    "Message",
    "Suggestion",
    "answer_response",
]

#: Seconds between comments. A synchronous server notices at the second comment that a browser has left.
KEEP_ALIVE: Final = 0.3

_HEADERS: Final = {
    "Cache-Control": "no-store",
    # The first keeps nginx from collecting the events, the second keeps GZipMiddleware and others from doing so.
    "X-Accel-Buffering": "no",
    "Content-Encoding": "identity",
}


def answer_response(
    request: Any,
    conversation_id: "str | UUID",
    text: str,
    *,
    deployment: str = DEFAULT_ALIAS,
    first_text_timeout: float = FIRST_TEXT_TIMEOUT,
    keep_alive: float = KEEP_ALIVE,
) -> StreamingHttpResponse:
    """Ask a conversation's agent as ``request.user``, and stream the answer to the browser as server-sent events.

    ``event: text`` carries a piece of the answer as ``{"text"}``. The last event is ``event: done`` with ``{"status"}``
    or ``event: error`` with ``{"detail"}``, and with ``"connect_url"`` if the user has to connect. This works in
    synchronous and asynchronous views, and under WSGI and ASGI; under ASGI the extra ``async`` is required. AIRisk is
    called when the response is sent, not before, and the call is closed when the browser leaves.

    :param first_text_timeout: seconds to wait for the first piece of text, and then for each further one.
    :param keep_alive: seconds between comments, which are sent while there is nothing else to send.
    """
    asked = question(conversation_id, text, first_text_timeout)
    # The server, not the view, decides which kind of iterator can be streamed. Wrapped requests have a scope, too.
    stream = _asynchronous if hasattr(request, "scope") else _synchronous
    content = stream(request, deployment, asked, first_text_timeout, keep_alive)
    return StreamingHttpResponse(content, content_type="text/event-stream", headers=_HEADERS)


def _synchronous(
    request: Any, deployment: str, asked: "ChatRequest", patience: float, every: float
) -> "Iterator[bytes]":
    from .client.relay import BlockingRelay

    return BlockingRelay(_session(request, deployment), every)(asked, patience)


def _asynchronous(
    request: Any, deployment: str, asked: "ChatRequest", patience: float, every: float
) -> "AsyncIterator[bytes]":
    from .client.async_chat import AsyncCalls
    from .client.async_relay import arelay

    client = _session(request, deployment).aclient
    return arelay(AsyncCalls(client, client.deployment.api_timeout), asked, patience, every)


def _session(request: Any, deployment: str) -> Any:
    if deployment == DEFAULT_ALIAS:
        return request.airisk
    from .client.sessions import AIRiskSession

    session = AIRiskSession.for_visitor(request, deployment)
    session.keeps_async_connections = False
    return session


def __getattr__(name: str) -> Any:
    # On first use: requests and httpx2 are heavy, and httpx2 may be missing.
    if name in ("Answer", "Chat"):
        from .client import chat

        return getattr(chat, name)
    if name in ("AsyncAnswer", "AsyncChat"):
        from .client import async_chat

        return getattr(async_chat, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
