"""A site that streams agents' answers to browsers: relayed by ``answer_response``, or copied by hand. For a server."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import django
from django.conf import settings

django.setup()
settings.MIDDLEWARE = ["airisk_oauth.middleware.AIRiskMiddleware"]
settings.ROOT_URLCONF = __name__

from django.contrib.auth.models import User  # noqa: E402 - after the set-up
from django.core.handlers.asgi import ASGIHandler  # noqa: E402
from django.core.handlers.wsgi import WSGIHandler  # noqa: E402
from django.http import StreamingHttpResponse  # noqa: E402
from django.urls import path  # noqa: E402

from airisk_oauth.chat import answer_response  # noqa: E402

from .airisk import ASK  # noqa: E402

USER = User.objects.get()


def ours(request: Any) -> StreamingHttpResponse:
    request.user = USER
    return answer_response(request, "c-1", _question(request))


def by_hand(request: Any) -> StreamingHttpResponse:
    request.user = USER
    copied = _copied if hasattr(request, "scope") else _copied_blocking
    return StreamingHttpResponse(copied(request), content_type="text/event-stream")


async def ours_async(request: Any) -> StreamingHttpResponse:
    return ours(request)


async def by_hand_async(request: Any) -> StreamingHttpResponse:
    return by_hand(request)


def _question(request: Any) -> str:
    given = {name: float(request.GET[name]) for name in ("pieces", "interval", "length")}
    return json.dumps({**given, "pieces": int(given["pieces"]), "length": int(given["length"])})


async def _copied(request: Any) -> AsyncIterator[bytes]:
    question = {"conversationID": "c-1", "text": _question(request)}
    async with request.airisk.aclient.stream("POST", ASK, json=question) as response:
        async for part in response.aiter_raw():
            yield part


def _copied_blocking(request: Any) -> Iterator[bytes]:
    question = {"conversationID": "c-1", "text": _question(request)}
    with request.airisk.post(ASK, json=question, stream=True) as response:
        yield from response.iter_content(None)


urlpatterns = [
    path("ours/", ours),
    path("by-hand/", by_hand),
    path("ours-async/", ours_async),
    path("by-hand-async/", by_hand_async),
]
wsgi = WSGIHandler()
asgi = ASGIHandler()
