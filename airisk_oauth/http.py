"""Requests with a typed ``airisk``, to annotate views with. Django never makes an instance of these classes."""

from typing import TYPE_CHECKING, Protocol

from django.http import HttpRequest

if TYPE_CHECKING:
    from .client.async_client import AsyncAIRiskClient
    from .client.sessions import AIRiskSession
    from .oauth.deployment import Deployment


class AIRiskRequest(HttpRequest):
    """The request of a synchronous view below ``AIRiskMiddleware``."""

    airisk: "AIRiskSession"


class AsyncAIRisk(Protocol):
    """What an asynchronous view may use of ``request.airisk``: the session's own methods would block the event loop."""

    @property
    def aclient(self) -> "AsyncAIRiskClient":
        """The client that calls as ``request.user`` (extra ``async``)."""

    @property
    def deployment(self) -> "Deployment":
        """The deployment that is called."""


class AsyncAIRiskRequest(HttpRequest):
    """The request of an asynchronous view below ``AIRiskMiddleware``: ``await request.airisk.aclient.get(…)``."""

    airisk: AsyncAIRisk
