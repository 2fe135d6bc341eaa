"""Both clients of AIRisk's OAuth endpoints, called in the same way, and the error that a call ends with."""

import asyncio
import json
import time
import traceback
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from airisk_oauth import conf
from airisk_oauth.exceptions import AIRiskError, AIRiskUnavailable
from airisk_oauth.oauth import code_flow
from airisk_oauth.oauth.async_transport import AsyncOAuthClient
from airisk_oauth.oauth.authorization import PageShown
from airisk_oauth.oauth.code_flow import obtain_silently
from airisk_oauth.oauth.deployment import Deployment
from airisk_oauth.oauth.messages import Secret
from airisk_oauth.oauth.transport import OAuthClient
from tests.support.wire import TOO_LONG

CODE, STATE, SECRET, TOKEN = (Secret(f"canary-{name}/+=&") for name in ("code", "state", "secret", "token"))
REDIRECT_URI = "https://app.example.com/airisk/callback/"
GRANT = json.dumps({"access_token": "a-token"}).encode()
#: The start of a response with chunks of a body.
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
HALF_A_TOKEN = b'{"access_token": "canary-token'


class BlockingAsyncOAuthClient(ExitStack):
    """The asynchronous client, on an event loop of its own."""

    def __init__(self, deployment: Deployment) -> None:
        super().__init__()
        self.deployment = deployment
        self.client = AsyncOAuthClient(deployment)
        self.loop = self.enter_context(asyncio.Runner())
        self.callback(lambda: self.loop.run(self.client.__aexit__()))

    def run(self, flow: Callable[..., Coroutine[Any, Any, Any]], *args: Any, **options: Any) -> Any:
        return self.loop.run(self.client.run(flow, *args, **options))


AnyClient = OAuthClient | BlockingAsyncOAuthClient


@pytest.fixture(params=[OAuthClient, BlockingAsyncOAuthClient])
def make_client(request: pytest.FixtureRequest, settings: Any) -> Iterator[Callable[..., AnyClient]]:
    """Return a function that makes a client of a deployment at this URL, closed after the test."""
    with ExitStack() as clients:

        def make_client(url: str, **options: Any) -> AnyClient:
            required = {
                "BASE_URL": url,
                "CLIENT_ID": "client-1",
                "CLIENT_SECRET": str(SECRET),
                "REDIRECT_URI": REDIRECT_URI,
            }
            settings.AIRISK_OAUTH = {"default": {**required, **options}}
            made: AnyClient = clients.enter_context(request.param(conf.deployment()))
            return made

        yield make_client


MakeClient = Callable[..., AnyClient]


def exchange(client: AnyClient, userid: str | None = "user_42") -> Any:
    """Exchange a code for a token."""
    return client.run(code_flow.exchange, client.deployment, CODE, userid=userid)


def authorize(client: AnyClient) -> Any:
    """Request a code without a browser."""
    return client.run(code_flow.authorize, client.deployment, state=STATE, userid="user_42")


def obtain(client: AnyClient) -> Any:
    """Obtain a token without a browser, by with_each_call of these calls."""
    return client.run(obtain_silently, client.deployment, "user_42")


with_each_call = pytest.mark.parametrize("call", [exchange, authorize])


def error_of(call: Callable[[AnyClient], Any], client: AnyClient) -> Exception:
    """Return the error that this call raises.

    It is one of ours, it comes in time, and no secret is in its words, its traceback or the variables of its frames.
    """
    began = time.monotonic()
    with pytest.raises((AIRiskError, PageShown)) as raised:
        call(client)
    assert time.monotonic() - began < TOO_LONG / 2
    error: Exception = raised.value
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None
    shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert "OAuthClient object at" in shown
    shown += f"{error!r} {vars(error)}"
    assert "canary" not in shown
    return error


def assert_times_out_within(seconds: float, client: AnyClient) -> None:
    """Check that an exchange times out in time.

    A busy machine needs more time now and then; if a deadline does not hold, it is exceeded every time.
    """
    for _try in range(5):
        began = time.monotonic()
        assert isinstance(error_of(exchange, client), AIRiskUnavailable)
        if time.monotonic() - began < seconds:
            return
    pytest.fail(f"No exchange timed out within {seconds} s.")
