"""What the type checkers know, and what they find wrong: a comment where nothing is wrong is an error, too."""

from typing import assert_type

import requests
from django.http import HttpRequest, HttpResponse

from airisk_oauth import AIRiskSession, AsyncAIRiskClient
from airisk_oauth.connecting.pages import ConnectionStatus, connection_status
from airisk_oauth.decorators import airisk_required
from airisk_oauth.http import AIRiskRequest, AsyncAIRiskRequest

from . import views


def synchronous(request: AIRiskRequest) -> None:
    assert_type(request.airisk, AIRiskSession)
    assert_type(request.airisk.get("/api/GetConversations"), requests.Response)
    assert_type(views.conversations(request), HttpResponse)
    assert_type(views.conversation(request, 1, page="2"), HttpResponse)
    assert_type(connection_status(request.user), ConnectionStatus)
    request.airisk.call("/api/GetConversations")  # type: ignore[attr-defined]
    views.conversation(request, "one")  # type: ignore[arg-type]


async def asynchronous(request: AsyncAIRiskRequest) -> None:
    assert_type(request.airisk.aclient, AsyncAIRiskClient)
    assert_type((await request.airisk.aclient.get("/api/GetConversations")).status_code, int)
    assert_type(await views.agents(request), HttpResponse)
    request.airisk.get("/api/GetConversations")  # type: ignore[attr-defined]


def plain(request: HttpRequest) -> None:
    request.airisk.get("/api/GetConversations")  # type: ignore[attr-defined]
    views.conversations(request)  # type: ignore[arg-type]


@airisk_required(deployment=1)  # type: ignore[call-overload, untyped-decorator]
def wrong(request: AIRiskRequest) -> HttpResponse:
    return HttpResponse()
