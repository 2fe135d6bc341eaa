"""Both sides of the chat API, used alike; and answers as AIRisk streams them."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from asgiref.sync import async_to_sync
from django.contrib.auth.models import User

from airisk_oauth import AIRiskSession, AsyncAIRiskClient
from airisk_oauth.chat import Agent, Conversation
from airisk_oauth.exceptions import AIRiskError
from tests.support.wire import TOO_LONG

HEAD: Final = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
CHUNKED: Final = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
CONVERSATION: Final = "c-1"


class Taken(NamedTuple):
    """What somebody got of an answer."""

    pieces: list[str]
    text: str
    status: str | None
    error: AIRiskError | None = None


class BlockingSide:
    """The synchronous side."""

    def __init__(self, user: User) -> None:
        self.session = AIRiskSession.for_user(user)
        self.chat = self.session.chat
        self.agents: Callable[[], list[Agent]] = self.chat.agents
        self.conversation: Callable[[Any], Conversation] = self.chat.conversation
        self.create_conversation = self.chat.create_conversation
        self.attach = self.chat.attach
        self.rate = self.chat.rate

    def conversations(self) -> list[Conversation]:
        return list(self.chat.conversations())

    def take(self, most: int | None = None, text: str = "Why?", to: str = CONVERSATION, **options: Any) -> Taken:
        """Ask, and take the whole answer or so many pieces."""
        pieces, error = [], None
        answer = self.chat.ask(to, text, **options)
        try:
            with answer:
                for piece in answer:
                    pieces.append(piece)
                    if len(pieces) == most:
                        break
        except AIRiskError as caught:
            error = caught
        return Taken(pieces, answer.text, answer.status, error)

    def close(self) -> None:
        self.session.close()


class AsyncSide:
    """The asynchronous side, each use of it on an event loop of its own."""

    def __init__(self, user: User) -> None:
        self.client = AsyncAIRiskClient.for_user(user, keep_alive=False)
        self.chat = self.client.chat
        self.agents: Callable[[], list[Agent]] = async_to_sync(self.chat.agents)
        self.conversation: Callable[[Any], Conversation] = async_to_sync(self.chat.conversation)
        self.create_conversation = async_to_sync(self.chat.create_conversation)
        self.attach = async_to_sync(self.chat.attach)
        self.rate = async_to_sync(self.chat.rate)

    def conversations(self) -> list[Conversation]:
        async def listed() -> list[Conversation]:
            return [each async for each in self.chat.conversations()]

        return async_to_sync(listed)()

    def take(self, most: int | None = None, text: str = "Why?", to: str = CONVERSATION, **options: Any) -> Taken:
        return async_to_sync(self._take)(most, text, to, **options)

    async def _take(self, most: int | None, text: str, to: str, **options: Any) -> Taken:
        pieces, error = [], None
        answer = self.chat.ask(to, text, **options)
        try:
            async with answer:
                async for piece in answer:
                    pieces.append(piece)
                    if len(pieces) == most:
                        break
        except AIRiskError as caught:
            error = caught
        return Taken(pieces, answer.text, answer.status, error)

    def close(self) -> None:
        async_to_sync(self.client.aclose)()


Side = BlockingSide | AsyncSide
SIDES: Final = (BlockingSide, AsyncSide)


@contextmanager
def side_of(kind: type[Side], user: User) -> Iterator[Side]:
    side = kind(user)
    try:
        yield side
    finally:
        side.close()


# Answers


def old_stream(*pieces: str, end: str = "event: done\ndata: [DONE]\n\n") -> bytes:
    """An answer in the shape of 2025."""
    deltas = [{"delta": {"content": [{"text": {"value": piece}}]}} for piece in pieces]
    events = [f"event: thread.message.delta\ndata: {json.dumps(each, ensure_ascii=False)}\n\n" for each in deltas]
    return "".join([*events, end]).encode()


def new_stream(*pieces: str, end: str = '{"UpdateKind": 6}\n[DONE]\n') -> bytes:
    """An answer in the shape of 2026."""
    updates = [{"UpdateKind": 21, "Text": piece} for piece in pieces]
    lines = [f"{json.dumps(each, ensure_ascii=False)}\n" for each in updates]
    return "".join([*lines, end]).encode()


def chunk(data: bytes) -> bytes:
    """A chunk of a body (RFC 9112, section 7.1); the one of no bytes is the last."""
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


class Watched:
    """Sends an answer, and watches when the caller leaves. A script of :class:`tests.support.wire.Server`.

    :param head: sent before anything is waited for.
    :param rest: sent once :attr:`go_on` is set.
    """

    def __init__(self, head: bytes, rest: bytes = b"") -> None:
        self.head, self.rest = head, rest
        self.asked, self.go_on, self.left = threading.Event(), threading.Event(), threading.Event()
        self.left_at = float("inf")

    def __call__(self, sock: socket.socket) -> None:
        sock.sendall(self.head)
        self.asked.set()
        sock.settimeout(0.01)
        ends = time.monotonic() + TOO_LONG
        while time.monotonic() < ends:
            if self.go_on.is_set() and self.rest:
                sock.sendall(self.rest)
                self.rest = b""
            try:
                gone = not sock.recv(1)
            except TimeoutError:
                continue
            except OSError:
                gone = True
            if gone:
                self.left_at = time.monotonic()
                self.left.set()
                return
