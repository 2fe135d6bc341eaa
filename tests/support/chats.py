"""Both sides of the chat API, used alike; and answers as AIRisk streams them."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final, NamedTuple

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User

from airisk_oauth import AIRiskSession, AsyncAIRiskClient
from airisk_oauth.chat import Agent, Conversation
from airisk_oauth.exceptions import AIRiskError
from airisk_oauth.models import AIRiskToken
from airisk_oauth.sandbox.world import World
from tests.support.options import set_option
from tests.support.people import give_token, live_token
from tests.support.wire import TOO_LONG, Script, Serve, Server, http, saying

HEAD: Final = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
CHUNKED: Final = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
CONVERSATION: Final = "c-1"
#: Seconds that nothing takes, even on a busy machine.
SOON: Final = 5


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

    def take(
        self,
        most: int | None = None,
        text: str = "Why?",
        to: str = CONVERSATION,
        begun: threading.Event | None = None,
        **options: Any,
    ) -> Taken:
        """Ask, and take the whole answer or so many pieces; set ``begun`` once there is one."""
        pieces, error = [], None
        answer = self.chat.ask(to, text, **options)
        try:
            with answer:
                for piece in answer:
                    pieces.append(piece)
                    if begun:
                        begun.set()
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
        self.take: Callable[..., Taken] = async_to_sync(self._take)

    def conversations(self) -> list[Conversation]:
        async def listed() -> list[Conversation]:
            return [each async for each in self.chat.conversations()]

        return async_to_sync(listed)()

    async def _take(
        self,
        most: int | None = None,
        text: str = "Why?",
        to: str = CONVERSATION,
        begun: threading.Event | None = None,
        **options: Any,
    ) -> Taken:
        pieces, error = [], None
        answer = self.chat.ask(to, text, **options)
        try:
            async with answer:
                async for piece in answer:
                    pieces.append(piece)
                    if begun:
                        begun.set()
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


@pytest.fixture(params=SIDES)
def side_kind(request: pytest.FixtureRequest) -> type[Side]:
    found: type[Side] = request.param
    return found


@pytest.fixture
def chat(side_kind: type[Side], airisk: World, mia: User) -> Iterator[Side]:
    """Mia's chat with the sandbox, on both sides."""
    live_token(airisk, mia)
    with side_of(side_kind, mia) as side:
        yield side


# Answers by a script


def give_canary(user: User) -> None:
    """Store a token from before its origin was noted, because the server's address is not known yet."""
    give_token(user, access_token="token-canary")
    AIRiskToken.objects.update(origin="")


class ScriptedChat:
    """Mia's chat with a server that follows a script."""

    def __init__(self, server: Server, side: Side) -> None:
        self.server, self.side = server, side

    def error_of(self, call: Callable[[Side], object]) -> AIRiskError:
        with pytest.raises(AIRiskError) as raised:
            call(self.side)
        return raised.value


ChatAt = Callable[..., ScriptedChat]


@pytest.fixture
def chat_at(side_kind: type[Side], mia: User, settings: Any, serve: Serve) -> Iterator[ChatAt]:
    """Return Mia's chat with a server that follows a script, on both sides."""
    give_canary(mia)
    with ExitStack() as stack:

        def chat_at(script: Script, **options: Any) -> ScriptedChat:
            server = serve(script)
            set_option(settings, BASE_URL=server.url, **options)
            return ScriptedChat(server, stack.enter_context(side_of(side_kind, mia)))

        yield chat_at


def calls_of(side: Side) -> list[Callable[[], object]]:
    return [
        side.agents,
        side.conversations,
        lambda: side.conversation("c"),
        lambda: side.create_conversation("a", "T"),
        lambda: side.attach("c", b"", "plan.pdf"),
        lambda: side.rate("c", "m", "Like"),
        lambda: raise_error(side.take().error),
    ]


def raise_error(error: BaseException | None) -> None:
    if error is not None:
        raise error


def answering(content: object, *headers: str, status: str = "200 OK") -> Script:
    """Answer with these bytes, or with this as JSON."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return saying(http(body, status, *headers))


def in_turn(*scripts: Script) -> Script:
    def script(sock: socket.socket) -> None:
        for each in scripts:
            each(sock)

    return script


def pausing(_sock: socket.socket) -> None:
    time.sleep(0.2)


# Streams


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
