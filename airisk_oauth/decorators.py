"""``airisk_required``: for views that only users who are connected to AIRisk may see."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, overload

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from . import conf
from .connecting.guard import answer_unconnected, middleware_required

View = TypeVar("View", bound=Callable[..., Any])


@overload
def airisk_required(view: View) -> View: ...
@overload
def airisk_required(*, deployment: str = ...) -> Callable[[View], View]: ...
def airisk_required(view: Any = None, *, deployment: str = conf.DEFAULT_ALIAS) -> Any:
    """Send a user without a usable token to the connect page, and a visitor who is not signed in to the login page.

    Use it as ``@airisk_required`` or ``@airisk_required(deployment="…")``, on synchronous and asynchronous views.
    AIRisk is not called: a token that can be renewed silently is usable.

    :raises TypeError: the deployment is not a keyword argument.
    """
    if view is None:
        return lambda view: airisk_required(view, deployment=deployment)  # type: ignore[call-overload]
    if not callable(view):
        raise TypeError(
            f"airisk_required takes the deployment as a keyword argument: @airisk_required(deployment={view!r})"
        )

    if iscoroutinefunction(view):

        @wraps(view)
        async def async_wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            answer = await sync_to_async(answer_unconnected)(request, deployment)
            with middleware_required(request):
                return answer or await view(request, *args, **kwargs)

        return async_wrapper

    @wraps(view)
    def wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        answer: HttpResponseBase | None = answer_unconnected(request, deployment)
        with middleware_required(request):
            return answer or view(request, *args, **kwargs)

    return wrapper
