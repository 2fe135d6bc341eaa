from typing import Any

from django.http import HttpRequest, HttpResponse
from django.template import RequestContext, Template
from django.urls import include, path

from airisk_oauth.decorators import airisk_required


def call(request: Any) -> HttpResponse:
    return HttpResponse(request.airisk.get("/api/GetConversations"))


def tag(request: HttpRequest) -> HttpResponse:
    source = "{% load airisk_oauth %}{% airisk_connection %}"
    return HttpResponse(Template(source).render(RequestContext(request, {"request": request})))


urlpatterns = [
    path("airisk/", include("airisk_oauth.urls")),
    path("call/", call),
    path("needs/", airisk_required(call)),
    path("tag/", tag),
]
