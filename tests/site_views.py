"""Views that use ``airisk_oauth``, as a site would write them."""

from collections.abc import Iterator
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path
from django.views import View

from airisk_oauth import AIRiskSession
from airisk_oauth.chat import answer_response
from airisk_oauth.decorators import airisk_required
from airisk_oauth.mixins import AIRiskRequiredMixin


def home(request: HttpRequest) -> HttpResponse:
    return HttpResponse("home")


def conversations(request: HttpRequest) -> HttpResponse:
    answer = request.airisk.get("/api/GetConversations")  # type: ignore[attr-defined]
    return JsonResponse({"status": answer.status_code, "body": answer.text})


async def conversations_async(request: HttpRequest) -> HttpResponse:
    answer = await request.airisk.aclient.get("/api/GetConversations")  # type: ignore[attr-defined]
    return JsonResponse({"status": answer.status_code, "body": answer.text})


def application(request: HttpRequest) -> HttpResponse:
    with AIRiskSession.for_application() as airisk:
        return JsonResponse({"status": airisk.get("/api/Echo").status_code})


def streamed(request: HttpRequest) -> StreamingHttpResponse:
    def lines() -> Iterator[bytes]:
        yield request.airisk.get("/api/GetConversations").content  # type: ignore[attr-defined]

    return StreamingHttpResponse(lines())


def ask(request: HttpRequest) -> StreamingHttpResponse:
    return answer_response(request, "c-1", request.GET["text"], **_options(request))


async def ask_async(request: HttpRequest) -> StreamingHttpResponse:
    return answer_response(request, "c-1", request.GET["text"], **_options(request))


def _options(request: HttpRequest) -> dict[str, Any]:
    numbers = {name: float(request.GET[name]) for name in ("first_text_timeout", "keep_alive") if name in request.GET}
    return {**numbers, **{name: request.GET[name] for name in ("deployment",) if name in request.GET}}


@airisk_required
def needs_connection(request: HttpRequest) -> HttpResponse:
    return HttpResponse("connected")


@airisk_required(deployment="second")
async def needs_second(request: HttpRequest) -> HttpResponse:
    return HttpResponse("connected to the second")


class NeedsConnection(AIRiskRequiredMixin, View):
    def get(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        return HttpResponse("connected")


class NeedsConnectionAsync(AIRiskRequiredMixin, View):
    async def get(self, request: HttpRequest, **kwargs: Any) -> HttpResponse:
        return HttpResponse("connected")


urlpatterns = [
    path("", home, name="home"),
    path("conversations/", conversations, name="conversations"),
    path("conversations-async/", conversations_async, name="conversations-async"),
    path("application/", application, name="application"),
    path("streamed/", streamed, name="streamed"),
    path("ask/", ask, name="ask"),
    path("ask-async/", ask_async, name="ask-async"),
    path("needs/", needs_connection, name="needs"),
    path("needs-second/", needs_second, name="needs-second"),
    path("needs-class/", NeedsConnection.as_view(), name="needs-class"),
    path("needs-class-async/", NeedsConnectionAsync.as_view(), name="needs-class-async"),
]
