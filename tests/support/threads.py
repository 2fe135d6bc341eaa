"""Several callers at the same time, each with its own database connection, as in the threads of a server."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from django.db import connections

from airisk_oauth.exceptions import AIRiskError

Result = TypeVar("Result")


def at_once(*work: Callable[[], Result]) -> list[Result]:
    """Run these functions in threads that start at the same time, and return the results in order."""
    barrier = threading.Barrier(len(work))

    def begin(each: Callable[[], Result]) -> Result:
        barrier.wait(30)
        try:
            return each()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(work)) as pool:
        return list(pool.map(begin, work))


def attempt_here(work: Callable[[], Result]) -> Result | AIRiskError:
    """Run a function, and return its result or our error."""
    try:
        return work()
    except AIRiskError as error:
        return error


def attempt(work: Callable[[], Result]) -> Result | AIRiskError:
    """Run a function as in a thread of its own, whose database connections are closed afterwards."""
    try:
        return attempt_here(work)
    finally:
        connections.close_all()


def in_threads(number: int, work: Callable[[], Result]) -> list[Result | AIRiskError]:
    """Run a function in several threads that start at the same time."""
    barrier = threading.Barrier(number)

    def begin(_number: int) -> Result | AIRiskError:
        barrier.wait()
        return attempt(work)

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(begin, range(number)))
