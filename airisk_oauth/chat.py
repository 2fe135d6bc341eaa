"""AIRisk's chat API: an answer for a browser, and the types of what AIRisk answers.

The calls are made by ``AIRiskSession.chat`` and ``AsyncAIRiskClient.chat``. All of this is provisional, because AIRisk
does not document them.
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

#: Seconds. A synchronous server notices that a browser has left at the second comment after that.
KEEP_ALIVE: Final = 0.3

_HEADERS: Final = {
    "Cache-Control": "no-store",
    # Keeps nginx from gathering the events, and Django's GZipMiddleware and other compressors away from them.
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

    ``event: text`` has a piece of the answer as ``{"text"}``; the last event is ``event: done`` with ``{"status"}``
    (see :class:`.Answer`), or ``event: error`` with ``{"detail"}``, and ``"connect_url"`` if the user has to connect.
    Works in synchronous and asynchronous views, and streams under WSGI and ASGI alike; under ASGI it needs the extra
    ``async``. AIRisk is called when the response is sent, not before, and the call is closed when the browser leaves.

    :param first_text_timeout: seconds until the first text, and then until each next piece of it.
    :param keep_alive: seconds between the comments that are sent while there is nothing else to send.
    """
    asked = question(conversation_id, text, first_text_timeout)
    # Which iterator can be streamed depends on the server, not on the view. Others wrap the request, and pass this on.
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
