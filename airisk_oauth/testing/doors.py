"""Where requests leave the process, led to the fake: one door for ``requests``, and one for ``httpx2``.

Others may stand at the same place, before us or after us, and leave in any order. So a door that is closed stays a
harmless passage where it cannot be taken out, and never uncovers the network under somebody else.
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

_only_one = threading.Lock()


def doors(airisk: AIRiskServer) -> ExitStack:
    """Open both doors until this is closed.

    :raises RuntimeError: a fake is active already, in this thread or another.
    """
    if not _only_one.acquire(blocking=False):
        raise RuntimeError("A FakeAIRisk is active already. There can be one at a time, whatever the thread.")
    with ExitStack() as stack:
        stack.callback(_only_one.release)
        stack.enter_context(_Answers())
        stack.enter_context(_Passage(HTTPAdapter, "send", lambda _beneath: responses.mock.unbound_on_send()))
        stack.enter_context(_Passage(HTTPAdapter, "get_connection_with_tls_context", _guarded))
        answer = _Answer(airisk)
        stack.enter_context(_Passage(FirstMatchRegistry, "find", answer.after_others))
        stack.enter_context(_Passage(OrderedRegistry, "find", answer.out_of_order))
        stack.enter_context(async_door(airisk))
        return stack.pop_all()


def async_door(airisk: AIRiskServer) -> AbstractContextManager[object]:
    """Answer for AIRisk what ``httpx2`` sends; what goes elsewhere goes on to whoever stands there."""
    if find_spec("httpx2") is None:
        return nullcontext()
    import httpcore2
    import httpx2

    def guarded(beneath: Any) -> Any:
        async def connect(pool: Any, request: Any) -> Any:
            _refuse(bytes(request.url).decode())
            return await beneath(pool, request)

        return connect

    def replacing(beneath: Any) -> Any:
        async def handle(transport: "httpx2.AsyncHTTPTransport", request: "httpx2.Request") -> "httpx2.Response":
            url = str(request.url)
            if not deployments_at(url):
                passed_on: httpx2.Response = await beneath(transport, request)
                return passed_on
            # A test's own answers may ask the database.
            receive = sync_to_async(airisk.receive)
            status, headers, body = await receive(request.method, url, request.headers, await request.aread())
            return httpx2.Response(status, headers=headers, stream=httpx2.ByteStream(body))

        return handle

    with ExitStack() as stack:
        stack.enter_context(_Passage(httpx2.AsyncHTTPTransport, "handle_async_request", replacing))
        stack.enter_context(_Passage(httpcore2.AsyncConnectionPool, "handle_async_request", guarded))
        return stack.pop_all()


def _guarded(beneath: Any) -> Any:
    def connect(adapter: HTTPAdapter, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> Any:
        _refuse(str(request.url))
        return beneath(adapter, request, *args, **kwargs)

    return connect


def _refuse(url: str) -> None:
    """Let nothing go to the real AIRisk, though somebody has put aside what should have answered."""
    if deployments_at(url):
        raise RuntimeError(
            "A request to AIRisk passes FakeAIRisk by. What was started before it, a block of responses say, must not "
            "end before it."
        )


class _Passage(AbstractContextManager[None]):
    """Puts a function in the place of a class's own while it is open.

    :param replacing: makes it of what stands there.
    """

    def __init__(self, owner: type, name: str, replacing: Callable[[Any], Any]) -> None:
        self._owner, self._name = owner, name
        self._beneath = getattr(owner, name)
        self._function = replacing(self._beneath)

    def __enter__(self) -> None:
        def enter(*args: Any, **kwargs: Any) -> Any:
            return self._function(*args, **kwargs)

        self._entrance = enter
        setattr(self._owner, self._name, enter)

    def __exit__(self, *exc: object) -> None:
        self._function = self._beneath
        # Whoever stands there now will put back what they found, which is this.
        if getattr(self._owner, self._name) is self._entrance:
            setattr(self._owner, self._name, self._beneath)


class _Answers(AbstractContextManager[None]):
    """Takes away afterwards what a test has registered with ``responses``, and leaves what was there before."""

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
    """What ``responses`` finds for a request to an origin of AIRisk's, where nothing else was registered for it."""

    def __init__(self, airisk: AIRiskServer) -> None:
        super().__init__("ANY", "AIRISK_OAUTH", self._open)
        self._airisk = airisk

    def after_others(self, find: Any) -> Any:
        def find_or_answer(registry: FirstMatchRegistry, request: requests.PreparedRequest) -> Any:
            match, reasons = find(registry, request)
            return (self, []) if match is None and deployments_at(str(request.url)) else (match, reasons)

        return find_or_answer

    def out_of_order(self, find: Any) -> Any:
        """A registry that keeps an order forgets it when asked for a request that is not the next one."""

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
