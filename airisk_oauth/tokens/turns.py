"""One thread of a process at a time renews a token that cannot be leased; across processes there are leases."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: A token's encrypted text; for the application's first token, which has none yet, where it comes from and belongs.
Key = str | tuple[str, ...]

_turns: dict[Key, threading.Lock] = {}
# In a forked process, the threads that hold a turn are gone.
os.register_at_fork(after_in_child=_turns.clear)


@contextmanager
def turn(key: Key, seconds: float) -> Iterator[None]:
    """Let one thread of this process at a time renew this token.

    :param seconds: how long to wait for another thread before going on all the same.
    """
    lock = _turns.setdefault(key, threading.Lock())
    is_ours = lock.acquire(timeout=seconds)
    try:
        yield
    finally:
        if is_ours:
            lock.release()
        _turns.pop(key, None)
