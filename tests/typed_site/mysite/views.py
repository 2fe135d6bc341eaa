from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.views.generic import TemplateView, View

from airisk_oauth.connecting.guard import connection_required_response
from airisk_oauth.connecting.pages import connection_status
from airisk_oauth.decorators import airisk_required
from airisk_oauth.exceptions import AIRiskUnavailable, ConnectionRequired
from airisk_oauth.http import AIRiskRequest, AsyncAIRiskRequest
from airisk_oauth.mixins import AIRiskRequiredMixin


@airisk_required
def conversations(request: AIRiskRequest) -> HttpResponse:
    response = request.airisk.get("/api/GetConversations", timeout=10)
    response.raise_for_status()
    return JsonResponse(response.json(), safe=False)


@airisk_required(deployment="second")
def conversation(request: AIRiskRequest, number: int, *, page: str = "1") -> HttpResponse:
    return JsonResponse(request.airisk.get(f"/api/Chat/GetConversation/{number}", params={"page": page}).json())


@airisk_required
async def agents(request: AsyncAIRiskRequest) -> HttpResponse:
    response = await request.airisk.aclient.get("/api/Chat/ListAgents")
    return JsonResponse(response.json(), safe=False)


async def answer(request: AsyncAIRiskRequest) -> StreamingHttpResponse:
    async def pieces() -> AsyncIterator[bytes]:
        async with request.airisk.aclient.stream("POST", "/api/Chat/AskAgent", json={"text": "Why?"}) as response:
            async for piece in response.aiter_bytes():
                yield piece

    return StreamingHttpResponse(pieces())


def export(request: AIRiskRequest) -> StreamingHttpResponse:
    def lines() -> Iterator[bytes]:
        with request.airisk as airisk:
            yield airisk.get("/api/GetConversations").content

    return StreamingHttpResponse(lines())


def overview(request: AIRiskRequest) -> HttpResponseBase:
    try:
        found = request.airisk.get("/api/GetConversations").json()
    except ConnectionRequired as error:
        return connection_required_response(request, error)
    except AIRiskUnavailable as error:
        return HttpResponse("Later.", status=503, headers={"Retry-After": str(error.retry_after or 30)})
    return JsonResponse(found, safe=False)


def profile(request: HttpRequest) -> HttpResponse:
    connection = connection_status(request.user, request=request)
    until = connection.token.expires_at if connection.token else None
    return render(request, "profile.html", {"connection": connection, "until": until})


class Agents(AIRiskRequiredMixin, View):
    airisk_deployment = "second"

    def get(self, request: AIRiskRequest) -> HttpResponse:
        return JsonResponse(request.airisk.get("/api/Chat/ListAgents").json(), safe=False)


class AsyncAgents(AIRiskRequiredMixin, View):
    async def get(self, request: AsyncAIRiskRequest) -> HttpResponse:
        return JsonResponse((await request.airisk.aclient.get("/api/Chat/ListAgents")).json(), safe=False)


class Dashboard(AIRiskRequiredMixin, TemplateView):
    template_name = "dashboard.html"

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        request = cast("AIRiskRequest", self.request)
        return {**super().get_context_data(**kwargs), "agents": request.airisk.get("/api/Chat/ListAgents").json()}
