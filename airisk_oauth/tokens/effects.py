"""What a rule asks for while it decides: the database, a moment's wait, a token from AIRisk.

Rules are generators that yield these and do none of them. :func:`run` does them here and now, :func:`arun` without
ever holding up the event loop; so there is one copy of the rules for both.
"""

import asyncio
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, ParamSpec, Protocol, TypeVar, cast

from asgiref.sync import sync_to_async

from ..oauth.code_flow import obtain_silently
from ..oauth.deployment import Deployment
from ..oauth.messages import Result, TokenGrant
from . import unwritten

Arguments = ParamSpec("Arguments")
Value = TypeVar("Value")


class Came(NamedTuple):
    """What came of an effect. Sent, not thrown, into the rule that asked for it: that is how tracers keep their way."""

    value: Any = None
    error: BaseException | None = None

    def result(self) -> Any:
        """Return it, or raise what was raised instead."""
        if self.error is None:
            return self.value
        try:
            raise self.error
        finally:
            # An error that its own traceback leads back to would stay in memory.
            del self


class Effect(Protocol):
    """Something to be done for a rule, which is resumed with what came of it."""

    def do(self) -> Any: ...
    async def do_async(self) -> Any: ...


#: A rule at work, and what it comes to.
Steps = Generator[Effect, Came, Result]


@dataclass(frozen=True)
class Query:
    work: Callable[[], Any]

    def do(self) -> Any:
        return self.work()

    async def do_async(self) -> Any:
        work = asyncio.ensure_future(sync_to_async(self.work)())
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            # What is on its way to the database is done all the same: a token that was granted is saved.
            await asyncio.wait([work])
            raise


@dataclass(frozen=True)
class Pause:
    seconds: float

    def do(self) -> None:
        time.sleep(self.seconds)

    async def do_async(self) -> None:
        await asyncio.sleep(self.seconds)


@dataclass(frozen=True)
class Obtain:
    deployment: Deployment
    userid: str | None

    def do(self) -> TokenGrant:
        from ..oauth.transport import OAuthClient

        with OAuthClient(self.deployment) as client:
            grant: TokenGrant = client.run(obtain_silently(self.deployment, self.userid))
        return grant

    async def do_async(self) -> TokenGrant:
        from ..oauth.async_transport import AsyncOAuthClient

        async with AsyncOAuthClient(self.deployment) as client:
            return await client.run(obtain_silently(self.deployment, self.userid))


@dataclass(frozen=True)
class OneAtATime:
    steps: Steps[Any]
    key: unwritten.Key
    seconds: float

    def do(self) -> Any:
        with unwritten.turn(self.key, self.seconds):
            return run(self.steps)

    async def do_async(self) -> Any:
        # Waiting for a lock would hold up the event loop that its holder may need.
        return await arun(self.steps)


def query(work: Callable[Arguments, Value], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Steps[Value]:
    """Come to what this work brings, which may need the database."""
    return cast("Value", (yield Query(partial(work, *args, **kwargs))).result())


def pause(seconds: float) -> Steps[None]:
    """Let this time pass."""
    (yield Pause(seconds)).result()


def obtain(deployment: Deployment, userid: str | None) -> Steps[TokenGrant]:
    """Come to a token that AIRisk gives to this server without a browser. Errors: :func:`flow.obtain_silently`."""
    return cast("TokenGrant", (yield Obtain(deployment, userid)).result())


def one_at_a_time(steps: Steps[Value], key: unwritten.Key, seconds: float) -> Steps[Value]:
    """Take steps that one thread of this process takes at a time; see :func:`unwritten.turn`."""
    return cast("Value", (yield OneAtATime(steps, key, seconds)).result())


def run(steps: Steps[Result]) -> Result:
    """Take these steps, blocking, and return what they come to. Errors: the steps' own."""
    try:
        effect = next(steps)
        while True:
            effect = steps.send(_attempt(effect))
    except StopIteration as end:
        return cast("Result", end.value)


async def arun(steps: Steps[Result]) -> Result:
    """Take these steps without blocking the event loop, and return what they come to. Errors: the steps' own."""
    try:
        effect = next(steps)
        while True:
            effect = steps.send(await _attempt_async(effect))
    except StopIteration as end:
        return cast("Result", end.value)


def _attempt(effect: Effect) -> Came:
    try:
        return Came(effect.do())
    except BaseException as error:  # noqa: BLE001 - the rule raises it
        return Came(error=error)


async def _attempt_async(effect: Effect) -> Came:
    try:
        return Came(await effect.do_async())
    except BaseException as error:  # noqa: BLE001 - the rule raises it, a cancellation too
        return Came(error=error)
