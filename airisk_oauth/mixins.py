"""``AIRiskRequiredMixin``: a class-based view for users who are connected to AIRisk."""

from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from . import conf
from .connecting.guard import answer_unconnected


class AIRiskRequiredMixin:
    """As :func:`~airisk_oauth.decorators.airisk_required`; put it left of the view class."""

    airisk_deployment = conf.DEFAULT_ALIAS
    view_is_async: bool

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        if self.view_is_async:
            return self._dispatch_async(request, *args, **kwargs)
        answer = answer_unconnected(request, self.airisk_deployment)
        return answer or super().dispatch(request, *args, **kwargs)  # type: ignore[misc]

    async def _dispatch_async(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        answer = await sync_to_async(answer_unconnected)(request, self.airisk_deployment)
        return answer or await super().dispatch(request, *args, **kwargs)  # type: ignore[misc]
