"""One of several sweeps of the same tokens at the same time."""

from functools import partial
from time import time

from airisk_oauth import conf
from airisk_oauth.tokens.report import RENEWED
from airisk_oauth.tokens.selection import Selection
from airisk_oauth.tokens.sweep import sweep

from .contenders import Measure, Measurement
from .people import Queries, connected_users, expire_tokens, migrated
from .renewal import WORKERS, peak


def prepare(task: str, number: str) -> Measure:
    if task == "fill":
        migrated()
        connected_users(int(number), expires_in=-60)
        return expired
    return partial(measured, Queries())


def expired() -> Measurement:
    """Let all tokens expire."""
    expire_tokens(-60)
    return {}


def measured(queries: Queries) -> Measurement:
    queries.count, memory, began = 0, peak(), time()
    report = sweep(Selection(conf.deployment()), workers=WORKERS)
    return {
        "renewed": report.counts[RENEWED],
        "began": began,
        "ended": time(),
        "queries": queries.count,
        "memory": peak() - memory,
    }
