"""Leads what ``httpx2`` sends to AIRisk to the fake; ``responses`` does not see it."""

from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Any
from unittest import mock

from asgiref.sync import sync_to_async

from .server import AIRiskServer, deployments_at


def async_door(airisk: AIRiskServer) -> AbstractContextManager[object]:
    """Answer for AIRisk while this is active; what goes elsewhere goes on to whoever stands there."""
    if find_spec("httpx2") is None:
        return nullcontext()
    import httpx2

    send: Any = httpx2.AsyncHTTPTransport.handle_async_request

    async def answer(transport: httpx2.AsyncHTTPTransport, request: httpx2.Request) -> httpx2.Response:
        url = str(request.url)
        if not deployments_at(url):
            passed_on: httpx2.Response = await send(transport, request)
            return passed_on
        # A test's own answers may ask the database.
        receive = sync_to_async(airisk.receive)
        status, headers, body = await receive(request.method, url, request.headers, await request.aread())
        return httpx2.Response(status, headers=headers, stream=httpx2.ByteStream(body))

    return mock.patch.object(httpx2.AsyncHTTPTransport, "handle_async_request", answer)
