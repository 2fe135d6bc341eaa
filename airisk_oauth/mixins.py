"""``AIRiskRequiredMixin``: for class-based views that only users who are connected to AIRisk may see."""

from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from . import conf
from .connecting.guard import answer_unconnected, middleware_required


class AIRiskRequiredMixin:
    """Send a user without a usable token to the connect page, and a visitor who is not signed in to the login page.

    Put it to the left of the view class. It does what :func:`~airisk_oauth.decorators.airisk_required` does, for the
    deployment whose alias is ``airisk_deployment``. A view of Django REST framework signs its user in by itself: there,
    it does what :class:`~airisk_oauth.contrib.rest_framework.IsConnected` does, after the view's own permissions.
    """

    airisk_deployment = conf.DEFAULT_ALIAS

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        # Declaring the attributes of views here would contradict other people's types of them.
        view: Any = self
        if hasattr(view, "perform_authentication"):
            from .contrib.rest_framework import IsConnected

            view.permission_classes = [*view.permission_classes, IsConnected]
            with middleware_required(request):
                return super().dispatch(request, *args, **kwargs)  # type: ignore[misc]
        if view.view_is_async:
            return self._dispatch_async(request, *args, **kwargs)
        answer = answer_unconnected(request, self.airisk_deployment)
        with middleware_required(request):
            return answer or super().dispatch(request, *args, **kwargs)  # type: ignore[misc]

    async def _dispatch_async(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        answer = await sync_to_async(answer_unconnected)(request, self.airisk_deployment)
        with middleware_required(request):
            return answer or await super().dispatch(request, *args, **kwargs)  # type: ignore[misc]
