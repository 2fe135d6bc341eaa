"""Several callers at the same moment, each with a connection of its own, as the threads of a server have."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from django.db import connections

from airisk_oauth.exceptions import (
    AIRiskError,
)

Result = TypeVar("Result")


def at_once(*work: Callable[[], Result]) -> list[Result]:
    """Do all of this in threads that begin at the same moment, and return the results in order."""
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
    """Do this; an error of ours is a result too."""
    try:
        return work()
    except AIRiskError as error:
        return error


def attempt(work: Callable[[], Result]) -> Result | AIRiskError:
    """Do this as a thread of its own would."""
    try:
        return attempt_here(work)
    finally:
        connections.close_all()


def in_threads(number: int, work: Callable[[], Result]) -> list[Result | AIRiskError]:
    """Do this in so many threads that begin at the same moment."""
    barrier = threading.Barrier(number)

    def begin(_number: int) -> Result | AIRiskError:
        barrier.wait()
        return attempt(work)

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(begin, range(number)))
