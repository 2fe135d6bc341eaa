"""How a rule waits: for the database, for time to pass, for AIRisk; blocking its thread, or never the event loop.

Rules are coroutines that await one of these two, so that there is one copy of each rule.
:func:`airisk_oauth.oauth.calls.run` runs a rule that waits by :data:`BLOCKING`.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, ParamSpec, Protocol, TypeVar

from asgiref.sync import sync_to_async

from ..oauth.code_flow import obtain_silently
from ..oauth.deployment import Deployment
from ..oauth.messages import TokenGrant
from .turns import Key, turn

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Waiting(Protocol):
    async def query(
        self, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        """Return the result of work that may need the database."""

    async def sleep(self, seconds: float) -> None:
        """Let this time pass."""

    async def obtain(self, deployment: Deployment, userid: str | None) -> TokenGrant:
        """Obtain a token without a browser. Errors: see :func:`~airisk_oauth.oauth.code_flow.obtain_silently`."""

    async def in_turn(self, rule: Coroutine[Any, Any, Result], key: Key, seconds: float) -> Result:
        """Run a rule that one thread of this process runs at a time; see :func:`.turns.turn`."""


class Blocking:
    """Blocks its thread, and never suspends the rule."""

    async def query(
        self, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        return work(*args, **kwargs)

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    async def obtain(self, deployment: Deployment, userid: str | None) -> TokenGrant:
        from ..oauth.transport import OAuthClient

        with OAuthClient(deployment) as client:
            return client.run(obtain_silently, deployment, userid)

    async def in_turn(self, rule: Coroutine[Any, Any, Result], key: Key, seconds: float) -> Result:
        with turn(key, seconds):
            return await rule


class NonBlocking:
    """Never blocks the event loop."""

    async def query(
        self, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        task = asyncio.ensure_future(sync_to_async(work)(*args, **kwargs))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            # What is on its way to the database is finished all the same: a token that was granted is saved.
            await asyncio.wait([task])
            raise

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def obtain(self, deployment: Deployment, userid: str | None) -> TokenGrant:
        from ..oauth.async_transport import AsyncOAuthClient

        async with AsyncOAuthClient(deployment) as client:
            return await client.run(obtain_silently, deployment, userid)

    async def in_turn(self, rule: Coroutine[Any, Any, Result], key: Key, seconds: float) -> Result:
        # Waiting for a lock would block the event loop that its holder may need.
        return await rule


BLOCKING: Final = Blocking()
NON_BLOCKING: Final = NonBlocking()
