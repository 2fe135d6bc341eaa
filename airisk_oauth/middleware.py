"""``request.airisk``, and the way to the connect page for a view that needs a connection."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponseRedirect, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.functional import SimpleLazyObject

from .exceptions import ConnectionRequired

if TYPE_CHECKING:
    from .sessions import AIRiskSession


class AIRiskMiddleware:
    """Gives every request ``request.airisk``: an ``AIRiskSession`` of its user, made on first use.

    Asynchronous views have its other side: ``await request.airisk.aclient.get(…)``. Put it below
    ``AuthenticationMiddleware``. A ``ConnectionRequired`` that a view raises is answered as
    :func:`connection_required_response` says.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        sessions: list[AIRiskSession] = []

        def make_session() -> "AIRiskSession":
            from .sessions import AIRiskSession

            if not hasattr(request, "user"):
                raise ImproperlyConfigured("request.airisk needs AuthenticationMiddleware above AIRiskMiddleware.")
            session = AIRiskSession.for_user(request.user)
            # In a synchronous stack, an asynchronous view has an event loop that ends with it.
            session.keeps_async_connections = self.is_async
            sessions.append(session)
            return session

        request.airisk = SimpleLazyObject(make_session)  # type: ignore[attr-defined]
        if self.is_async:
            return self._respond_async(request, sessions)
        return _closing(self.get_response(request), sessions)

    async def _respond_async(self, request: HttpRequest, sessions: "list[AIRiskSession]") -> HttpResponseBase:
        try:
            response = _closing(await self.get_response(request), sessions)
        except BaseException:
            # A client that went away: there will be no response to close them with.
            await _close_async(sessions)
            raise
        if isinstance(response, StreamingHttpResponse) and response.is_async:
            parts: Any = response.streaming_content
            response.streaming_content = _then_close(parts, sessions)
        else:
            await _close_async(sessions)
        return response

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponseBase | None:
        if isinstance(exception, ConnectionRequired) and exception.connect_url is not None:
            return connection_required_response(request, exception)
        return None


def connection_required_response(request: HttpRequest, error: ConnectionRequired) -> HttpResponseBase:
    """Send a browser to the page to connect on, and tell a script, with status 403, where that is."""
    if is_script(request):
        body = {"detail": str(error), "connect_url": error.connect_url}
        return JsonResponse(body, status=403)
    # Coming back to what was a POST would be a GET of something that may have no page.
    back = f"?{urlencode({'next': request.get_full_path()})}" if request.method in ("GET", "HEAD") else ""
    return HttpResponseRedirect(f"{error.connect_url}{back}")


def is_script(request: HttpRequest) -> bool:
    """Tell a script that wants JSON from a browser that shows pages."""
    if "X-Requested-With" in request.headers:
        return True
    return request.get_preferred_type(["text/html", "application/json"]) == "application/json"


def _closing(response: HttpResponseBase, sessions: "list[AIRiskSession]") -> HttpResponseBase:
    """Close the session with the response, which for a streamed one is after its last byte."""
    close = response.close

    def close_both() -> None:
        try:
            close()
        finally:
            for session in sessions:
                session.close()

    response.close = close_both  # type: ignore[method-assign]
    return response


async def _then_close(parts: AsyncIterator[bytes], sessions: "list[AIRiskSession]") -> AsyncIterator[bytes]:
    try:
        async for part in parts:
            yield part
    finally:
        await _close_async(sessions)


async def _close_async(sessions: "list[AIRiskSession]") -> None:
    for session in sessions:
        await session.aclose()
