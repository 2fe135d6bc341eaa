"""``request.airisk``, and the redirect to the connect page when a view needs a connection."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.functional import SimpleLazyObject, new_method_proxy

from .connecting.guard import connection_required_response
from .exceptions import ConnectionRequired
from .tokens import unwritten

if TYPE_CHECKING:
    from .client.sessions import AIRiskSession


class AIRiskMiddleware:
    """Gives every request ``request.airisk``: an ``AIRiskSession`` for its user, made on first use.

    Calls are made as the user who is ``request.user`` at that moment. Asynchronous views use
    ``await request.airisk.aclient.get(…)``. When a view raises ``ConnectionRequired``, a browser is redirected to the
    connect page, and a script gets a 403. Put it below ``AuthenticationMiddleware``.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        visit = _Visit(request, is_async=self.is_async)
        request.airisk = _LazySession(visit.make_session)  # type: ignore[attr-defined]
        if self.is_async:
            return self._respond_async(request, visit)
        try:
            response: HttpResponseBase = self.get_response(request)
            return response
        finally:
            unwritten.write()
            visit.end()

    async def _respond_async(self, request: HttpRequest, visit: "_Visit") -> HttpResponseBase:
        try:
            response: HttpResponseBase = await self.get_response(request)
            return response
        finally:
            if unwritten.anything():
                await sync_to_async(unwritten.write)()
            await visit.end_async()

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponseBase | None:
        if isinstance(exception, ConnectionRequired) and exception.connect_url is not None:
            return connection_required_response(request, exception)
        return None


class _Visit:
    """A request's session, from its first use until the view has returned. A streaming response may use it later."""

    def __init__(self, request: HttpRequest, *, is_async: bool) -> None:
        self._request = request
        # In a synchronous stack, an asynchronous view runs in an event loop of its own, which is closed after it.
        self._keeps_async_connections = is_async
        self._session: AIRiskSession | None = None
        self._is_over = False

    def make_session(self) -> "AIRiskSession":
        from .client.sessions import AIRiskSession

        session = self._session = AIRiskSession.for_visitor(self._request)
        session.keeps_async_connections = self._keeps_async_connections and not self._is_over
        if self._is_over:
            session.wind_down()
        return session

    def end(self) -> None:
        self._is_over = True
        if self._session is not None:
            self._session.wind_down()

    async def end_async(self) -> None:
        self.end()
        if self._session is not None:
            await self._session.awind_down()


class _LazySession(SimpleLazyObject):  # type: ignore[type-arg]
    """A lazy object that also works in a ``with`` statement, as the session itself does."""

    __enter__ = new_method_proxy(lambda session: session.__enter__())
    __exit__ = new_method_proxy(lambda session, *exc: session.__exit__(*exc))
