"""Patches ``requests`` and ``httpx2`` where requests leave the process, so that the fake answers them.

Other test tools patch the same functions, before us or after us, and are undone in any order. If our patch cannot be
removed, because another one is on top of it, it stays and passes everything on; it never exposes the network to a test
that believes it is covered.
"""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import requests
from asgiref.sync import sync_to_async
from requests.adapters import HTTPAdapter

from .server import AIRiskServer, deployments_at

try:
    import responses
    from responses.registries import FirstMatchRegistry, OrderedRegistry
except ImportError:
    raise ImportError("Testing with AIRisk needs responses: pip install 'django-airisk-oauth[testing]'") from None

if TYPE_CHECKING:
    import httpx2

_active = threading.Lock()


def patched(airisk: AIRiskServer) -> ExitStack:
    """Patch both libraries until the returned stack is closed.

    :raises RuntimeError: a fake is already active, in this thread or another.
    """
    if not _active.acquire(blocking=False):
        raise RuntimeError("A FakeAIRisk is already active. There can only be one at a time, in all threads together.")
    with ExitStack() as stack:
        stack.callback(_active.release)
        stack.enter_context(_Registrations())
        stack.enter_context(_Patch(HTTPAdapter, "send", lambda _original: responses.mock.unbound_on_send()))
        stack.enter_context(_Patch(HTTPAdapter, "get_connection_with_tls_context", _guarded))
        answer = _Answer(airisk)
        stack.enter_context(_Patch(FirstMatchRegistry, "find", answer.patched_find))
        stack.enter_context(_Patch(OrderedRegistry, "find", answer.patched_ordered_find))
        stack.enter_context(patched_httpx2(airisk))
        return stack.pop_all()


def patched_httpx2(airisk: AIRiskServer) -> AbstractContextManager[object]:
    """Answer what ``httpx2`` sends to AIRisk, and pass other requests on to the function that was there before."""
    if find_spec("httpx2") is None:
        return nullcontext()
    import httpcore2
    import httpx2

    def guarded(original: Any) -> Any:
        async def connect(pool: Any, request: Any) -> Any:
            _refuse(bytes(request.url).decode())
            return await original(pool, request)

        return connect

    def replacing(original: Any) -> Any:
        async def handle(transport: "httpx2.AsyncHTTPTransport", request: "httpx2.Request") -> "httpx2.Response":
            url = str(request.url)
            if not deployments_at(url):
                passed_on: httpx2.Response = await original(transport, request)
                return passed_on
            # In a thread, because a test's own answers may query the database.
            receive = sync_to_async(airisk.receive)
            status, headers, body = await receive(request.method, url, request.headers, await request.aread())
            return httpx2.Response(status, headers=headers, stream=httpx2.ByteStream(body))

        return handle

    with ExitStack() as stack:
        stack.enter_context(_Patch(httpx2.AsyncHTTPTransport, "handle_async_request", replacing))
        stack.enter_context(_Patch(httpcore2.AsyncConnectionPool, "handle_async_request", guarded))
        return stack.pop_all()


def _guarded(original: Any) -> Any:
    def connect(adapter: HTTPAdapter, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> Any:
        _refuse(str(request.url))
        return original(adapter, request, *args, **kwargs)

    return connect


def _refuse(url: str) -> None:
    """Send nothing to the real AIRisk, even if another tool has removed the patch that should have answered."""
    if deployments_at(url):
        raise RuntimeError(
            "A request to AIRisk bypasses FakeAIRisk. Whatever was started before it, such as a block of responses, "
            "must not end before it does."
        )


class _Patch(AbstractContextManager[None]):
    """Replaces a method of a class.

    :param replacement: makes the new function from the one that is there.
    """

    def __init__(self, owner: type, name: str, replacement: Callable[[Any], Any]) -> None:
        self._owner, self._name = owner, name
        self._original = getattr(owner, name)
        self._function = replacement(self._original)

    def __enter__(self) -> None:
        def call(*args: Any, **kwargs: Any) -> Any:
            return self._function(*args, **kwargs)

        self._installed = call
        setattr(self._owner, self._name, call)

    def __exit__(self, *exc: object) -> None:
        self._function = self._original
        # If another patch is on top of this one, it will restore what it found: this one, which now does nothing.
        if getattr(self._owner, self._name) is self._installed:
            setattr(self._owner, self._name, self._original)


class _Registrations(AbstractContextManager[None]):
    """Afterwards removes what a test has registered with ``responses``, and keeps what was there before."""

    def __enter__(self) -> None:
        self._registered = [*responses.registered()]
        self._passed_through = responses.mock.passthru_prefixes
        self._had_calls = bool(len(responses.calls))

    def __exit__(self, *exc: object) -> None:
        registered = responses.registered()
        registered[:] = [each for each in registered if any(each is before for before in self._registered)]
        responses.mock.passthru_prefixes = self._passed_through
        if not self._had_calls:
            responses.calls.reset()


class _Answer(responses.CallbackResponse):
    """What ``responses`` finds for a request to one of AIRisk's origins if the test has registered nothing for it."""

    def __init__(self, airisk: AIRiskServer) -> None:
        super().__init__("ANY", "AIRISK_OAUTH", self._open)
        self._airisk = airisk

    def patched_find(self, find: Any) -> Any:
        def find_or_answer(registry: FirstMatchRegistry, request: requests.PreparedRequest) -> Any:
            match, reasons = find(registry, request)
            return (self, []) if match is None and deployments_at(str(request.url)) else (match, reasons)

        return find_or_answer

    def patched_ordered_find(self, find: Any) -> Any:
        """The same for ``OrderedRegistry``, which loses its order if it is asked for any request but the next one."""

        def find_or_answer(registry: OrderedRegistry, request: requests.PreparedRequest) -> Any:
            is_next = any(each.matches(request)[0] for each in registry.registered[:1])
            return (self, []) if not is_next and deployments_at(str(request.url)) else find(registry, request)

        return find_or_answer

    def _open(self, request: requests.PreparedRequest) -> tuple[int, dict[str, str], bytes]:
        body = request.body or b""
        if not isinstance(body, bytes):
            body = body.encode() if isinstance(body, str) else b"".join(body)
        try:
            return self._airisk.receive(str(request.method), str(request.url), request.headers, body)
        except ConnectionRefusedError as error:
            raise requests.ConnectionError(str(error)) from None
