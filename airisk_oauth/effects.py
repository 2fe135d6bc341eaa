"""What a rule asks for while it decides: the database, a moment's wait, a token from AIRisk.

Rules are generators that yield these and do none of them. :func:`run` does them here and now, :func:`arun` without
ever holding up the event loop; so there is one copy of the rules for both.
"""

import asyncio
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, ParamSpec, Protocol, TypeVar

from asgiref.sync import sync_to_async
from django.db import connections

from . import flow
from .conf import Deployment
from .models import AIRiskToken
from .protocol import Result, TokenGrant

Arguments = ParamSpec("Arguments")
Came = TypeVar("Came")


class Effect(Protocol):
    """Something to be done for a rule, which is resumed with what came of it."""

    def do(self) -> Any: ...
    async def do_async(self) -> Any: ...


#: A rule at work, and what it comes to.
Steps = Generator[Effect, Any, Result]


@dataclass(frozen=True)
class Query:
    """Work that may need the database."""

    work: Callable[[], Any]

    def do(self) -> Any:
        return self.work()

    async def do_async(self) -> Any:
        return await sync_to_async(self.work)()


def query(work: Callable[Arguments, Came], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Steps[Came]:
    """Come to what this work brings, which may need the database."""
    came: Came = yield Query(partial(work, *args, **kwargs))
    return came


@dataclass(frozen=True)
class Pause:
    seconds: float

    def do(self) -> None:
        time.sleep(self.seconds)

    async def do_async(self) -> None:
        await asyncio.sleep(self.seconds)


@dataclass(frozen=True)
class Obtain:
    """A token from AIRisk, by the code flow that this server runs by itself. Errors: :func:`flow.obtain_silently`."""

    deployment: Deployment
    userid: str | None

    def do(self) -> TokenGrant:
        from .transport import OAuthClient

        with OAuthClient(self.deployment) as client:
            grant: TokenGrant = client.run(flow.obtain_silently(self.deployment, self.userid))
        return grant

    async def do_async(self) -> TokenGrant:
        from .async_transport import AsyncOAuthClient

        async with AsyncOAuthClient(self.deployment) as client:
            return await client.run(flow.obtain_silently(self.deployment, self.userid))


@dataclass(frozen=True)
class Apart:
    """Steps that have to commit whatever becomes of the caller's transaction; see :func:`on_own_connection`."""

    steps: Steps[Any]
    pk: Any

    def do(self) -> Any:
        return on_own_connection(lambda: run(self.steps), self.pk)

    async def do_async(self) -> Any:
        # No transaction spans an await: each query has committed when its turn is over.
        return await arun(self.steps)


def run(steps: Steps[Result]) -> Result:
    """Take these steps, blocking, and return what they come to. Errors: the steps' own."""
    try:
        effect = next(steps)
        while True:
            try:
                came = effect.do()
            except BaseException as error:  # noqa: BLE001 - a rule has to know how it ends, too
                effect = steps.throw(error)
            else:
                effect = steps.send(came)
    except StopIteration as end:
        result: Result = end.value
        return result


async def arun(steps: Steps[Result]) -> Result:
    """Take these steps without blocking the event loop, and return what they come to. Errors: the steps' own."""
    try:
        effect = next(steps)
        while True:
            try:
                came = await effect.do_async()
            except BaseException as error:  # noqa: BLE001 - a rule has to know how it ends, cancelled ones too
                effect = steps.throw(error)
            else:
                effect = steps.send(came)
    except StopIteration as end:
        result: Result = end.value
        return result


def on_own_connection(work: Callable[[], Result], pk: Any) -> Result:
    """Do what cannot wait so that it commits, whatever becomes of the caller's transaction.

    Where another connection cannot see the row ``pk`` (a ``TestCase``; SQLite while the caller writes), it is done on
    the caller's. Outside a transaction it is just done.
    """
    connection = connections[AIRiskToken.objects.primary().db]
    if not connection.in_atomic_block or connection.vendor == "sqlite":
        return work()

    def in_thread() -> tuple[Result] | None:
        try:
            visible = AIRiskToken.objects.primary().filter(pk=pk).exists()
            return (work(),) if visible else None
        finally:
            connections.close_all()

    with ThreadPoolExecutor(max_workers=1) as thread:
        done = thread.submit(in_thread).result()
    return work() if done is None else done[0]
