"""Several callers at the same moment, each with a database connection of its own, like the threads of a server."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from django.db import connections

from airisk_oauth.exceptions import AIRiskError

Result = TypeVar("Result")


def result_or_error(work: Callable[[], Result]) -> Result | AIRiskError:
    """Return the result of this work, or the error of ours that it raises."""
    try:
        return work()
    except AIRiskError as error:
        return error


def attempt(work: Callable[[], Result]) -> Result | AIRiskError:
    """Return the result or the error of this work, and close this thread's connections; for threads of a pool."""
    try:
        return result_or_error(work)
    finally:
        connections.close_all()


def at_once(*work: Callable[[], Result]) -> list[Result]:
    """Do each of these in a thread, all starting at the same moment, and return the results in the same order."""
    barrier = threading.Barrier(len(work))

    def begin(each: Callable[[], Result]) -> Result:
        barrier.wait(30)
        try:
            return each()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(work)) as pool:
        return list(pool.map(begin, work))


def in_threads(number: int, work: Callable[[], Result]) -> list[Result | AIRiskError]:
    """Do the same work in this number of threads, all starting at the same moment, and return results and errors."""
    return at_once(*[lambda: result_or_error(work)] * number)
