"""One time limit for many waits on an event loop."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from airisk_oauth.wire.async_limits import TimeLimit


def on_a_loop(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def test_wait_that_ends_too_late_is_an_error() -> None:
    async def main() -> None:
        limit = TimeLimit()
        began = time.monotonic()
        with pytest.raises(TimeoutError), limit.until(began + 0.05):
            await asyncio.sleep(5)
        assert 0.04 < time.monotonic() - began < 2
        with pytest.raises(TimeoutError), limit.until(began):
            await asyncio.sleep(5)
        limit.stop()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    on_a_loop(main())


def test_each_wait_has_its_own_deadline() -> None:
    """The timer of an earlier one goes off during a later one, and between two."""

    async def main() -> None:
        limit = TimeLimit()
        for _wait in range(5):
            with limit.until(time.monotonic() + 1):
                await asyncio.sleep(0.3)
        await asyncio.sleep(1)
        with pytest.raises(TimeoutError), limit.until(time.monotonic() + 0.05):
            await asyncio.sleep(5)
        with limit.until(time.monotonic() + 60):
            await asyncio.sleep(0)
        with pytest.raises(TimeoutError), limit.until(time.monotonic() + 0.05):
            await asyncio.sleep(5)
        limit.stop()
        TimeLimit().stop()

    on_a_loop(main())


@pytest.mark.parametrize("both", [False, True])
def test_cancelled_wait_stays_cancelled(both: bool) -> None:
    """Also when its time has passed at the same moment."""

    async def main() -> None:
        limit = TimeLimit()

        async def wait() -> None:
            with limit.until(time.monotonic() + (0.05 if both else 60)):
                await asyncio.sleep(5)

        task = asyncio.ensure_future(wait())
        await asyncio.sleep(0)
        if both:
            # The loop gets to nothing before the time has passed.
            time.sleep(0.1)
            asyncio.get_running_loop().call_soon(task.cancel)
            await asyncio.sleep(0)
            task.cancel()
        else:
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        limit.stop()

    on_a_loop(main())


def test_other_errors_of_a_wait_are_its_own() -> None:
    async def main() -> None:
        limit = TimeLimit()
        with pytest.raises(KeyError), limit.until(time.monotonic() + 5):
            raise KeyError
        limit.stop()

    on_a_loop(main())
