from typing import Any

from django.http import HttpRequest, JsonResponse
from ninja import NinjaAPI

from airisk_oauth.connecting.api import answer_for
from airisk_oauth.contrib.ninja import add_exception_handlers
from airisk_oauth.decorators import airisk_required
from airisk_oauth.http import AIRiskRequest, AsyncAIRiskRequest

api = NinjaAPI()
add_exception_handlers(api)


@api.get("/conversations")
@airisk_required
def conversations(request: AIRiskRequest, page: int = 1) -> Any:
    return request.airisk.get("/api/GetConversations", params={"page": page}).json()


@api.get("/agents")
async def agents(request: AsyncAIRiskRequest) -> Any:
    return (await request.airisk.aclient.get("/api/Chat/ListAgents")).json()


def handle(request: HttpRequest, error: Exception) -> JsonResponse:
    answer = answer_for(error)
    if answer is None:
        raise error
    return JsonResponse(answer.body, status=answer.status, headers=answer.headers)
