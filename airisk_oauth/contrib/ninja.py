"""For django-ninja: exception handlers."""

from typing import Any

from django.db import connections
from django.http import HttpRequest, HttpResponse
from ninja import NinjaAPI

from ..connecting.api import answer_for
from ..exceptions import AIRiskUnavailable, ConnectionRequired


def add_exception_handlers(api: NinjaAPI) -> None:
    """Let an API answer the errors of AIRisk that a client can do something about.

    ``ConnectionRequired`` is a 403 with ``detail`` and ``connect_url``, and ``AIRiskUnavailable`` a 503 with
    ``Retry-After``. With ``ATOMIC_REQUESTS``, the transaction is rolled back, as it is without these handlers.
    """

    def handle(request: HttpRequest, error: Any) -> HttpResponse:
        answer = answer_for(error)
        if answer is None:
            raise error
        _roll_back()
        response = api.create_response(request, answer.body, status=answer.status)
        for name, value in answer.headers.items():
            response.headers[name] = value
        return response

    api.add_exception_handler(ConnectionRequired, handle)
    api.add_exception_handler(AIRiskUnavailable, handle)


def _roll_back() -> None:
    for connection in connections.all(initialized_only=True):
        if connection.settings_dict["ATOMIC_REQUESTS"] and connection.in_atomic_block:
            connection.set_rollback(True)
