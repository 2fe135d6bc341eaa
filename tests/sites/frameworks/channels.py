"""A WebSocket of Channels."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

from django.urls import include, path

from tests.sites import frameworks, running
from tests.sites.frameworks import AIRISK, snippet
from tests.support.pages import module

frameworks.configure("channels")

from asgiref.testing import ApplicationCommunicator  # noqa: E402 - after the set-up
from channels.auth import AuthMiddlewareStack  # noqa: E402
from channels.routing import URLRouter  # noqa: E402

from tests.sites import mission as people  # noqa: E402

consumers = module("mysite.consumers", snippet("AsyncJsonWebsocketConsumer"))
application = AuthMiddlewareStack(URLRouter([path("conversations/", consumers.Conversations.as_asgi())]))
urlpatterns = [path("airisk/", include("airisk_oauth.urls"))]

Ask = Callable[[], Coroutine[Any, Any, Any]]


def talk(person: people.Person | None, use: Callable[[Ask], Coroutine[Any, Any, None]]) -> None:
    """Open a socket from a person's browser, and use it by a function that sends a message and returns the answer."""
    cookie = f"sessionid={person.browser.cookies['sessionid'].value}" if person else ""
    scope = {"type": "websocket", "path": "/conversations/", "headers": [(b"cookie", cookie.encode())]}

    async def main() -> None:
        socket: Any = ApplicationCommunicator(application, scope)  # type: ignore[no-untyped-call]
        await socket.send_input({"type": "websocket.connect"})
        assert (await socket.receive_output(10))["type"] == "websocket.accept"

        async def ask() -> Any:
            await socket.send_input({"type": "websocket.receive", "text": "{}"})
            return json.loads((await socket.receive_output(10))["text"])

        await use(ask)
        await socket.send_input({"type": "websocket.disconnect", "code": 1000})
        await socket.wait(10)

    asyncio.run(main())


def connected_user_is_answered() -> None:
    async def use(ask: Ask) -> None:
        assert await ask() == {"conversations": [{"id": "1", "userID": "user_42"}]}

    talk(people.new_connected_person(AIRISK, "mia", "user_42"), use)


def socket_can_be_used_after_connecting() -> None:
    max_ = people.new_person("max", "user_43")

    async def use(ask: Ask) -> None:
        assert await ask() == {"error": "connect", "connect_url": "/airisk/connect/"}
        await asyncio.to_thread(people.connect, max_)
        assert await ask() == {"conversations": [{"id": "1", "userID": "user_43"}]}

    talk(max_, use)


def visitor_is_told_where_to_connect() -> None:
    async def use(ask: Ask) -> None:
        assert await ask() == {"error": "connect", "connect_url": "/airisk/connect/"}

    talk(None, use)


def outage_is_reported() -> None:
    AIRISK.is_down = True

    async def use(ask: Ask) -> None:
        assert await ask() == {"error": "try later"}

    talk(people.new_connected_person(AIRISK, "ada", "ada", expires_in=-60), use)


running.keep(
    connected_user_is_answered,
    socket_can_be_used_after_connecting,
    visitor_is_told_where_to_connect,
    outage_is_reported,
)
