"""What was learned of a token where it could not be written: in a caller's transaction, or while the database failed.

A transaction of the caller's may be rolled back, and it may hold what another one waits for; so nothing of ours is
written, and nobody is waited for, inside of it. What a renewal brought is used at once and kept here, in this process:
the next look at the same row finds it. It is written when the transaction is committed, when the view has returned, or
by the next caller that reads the row outside a transaction, whichever comes first. AIRisk gives as many tokens as it
is asked for, so what is lost all the same costs one more renewal.

Entries are found by the sealed text, which is random and bound to its owner: no other row is ever taken for this one,
whatever tenant, schema or database the process turns to next.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from django.db import Error as DatabaseError
from django.db import transaction
from django.utils import timezone

from .conf import Deployment
from .database import in_transaction, retrying
from .events import log
from .models import AIRiskToken, is_recent

logger = logging.getLogger("airisk_oauth.renewal")

#: For how long it is kept where nothing lets it be written, and for how many rows.
KEEP: Final = timedelta(hours=1)
MOST: Final = 1000

#: The sealed text; for the application's first token, which has none yet, where it is to come from and to go.
Key = str | tuple[str, ...]
Tell = Callable[[AIRiskToken], object]


@dataclass(repr=False, eq=False)
class _Entry:
    pk: Any
    owner: dict[str, Any]
    sealed: str
    using: str
    values: dict[str, Any] = field(default_factory=dict)
    tell: list[Tell] = field(default_factory=list)
    thread: int = field(default_factory=threading.get_ident)
    since: datetime = field(default_factory=lambda: timezone.now())
    began: float = field(default_factory=time.monotonic)


#: By the sealed text that the row has, and by the one that it is to have.
_entries: dict[Key, _Entry] = {}
_to_write: set[_Entry] = set()
_turns: dict[Key, threading.Lock] = {}


def key_of(token: AIRiskToken, deployment: Deployment, using: str) -> Key:
    return token.sealed or (using, deployment.alias, deployment.base_url, deployment.client_id)


def keep(key: Key, token: AIRiskToken, values: dict[str, Any], using: str, tell: Tell | None = None) -> None:
    """Remember these values for a row.

    :param key: of the row as it was read, :func:`key_of`.
    :param token: the row, which may hold the values already.
    :param tell: called with the row once the values are written.
    """
    _forget_old()
    entry = _entries.get(key)
    if entry is None:
        owner = {"user_id": token.user_id, "deployment": token.deployment, "userid": token.userid}
        entry = _Entry(token.pk, owner, key if isinstance(key, str) else "", using)
    entry.values.update(values)
    entry.thread = threading.get_ident()
    if tell is not None:
        entry.tell.append(tell)
    _entries[key] = _entries[values.get("sealed") or key] = entry
    _to_write.add(entry)
    if in_transaction(using):
        transaction.on_commit(partial(_write, entry), using=using, robust=True)


def applied(token: AIRiskToken, deployment: Deployment, using: str) -> AIRiskToken:
    """Return a row that was just read as it ought to be; outside a transaction that is written now."""
    entry = _entries.get(key_of(token, deployment, using))
    if entry is None or not is_recent(entry.since, timezone.now(), KEEP):
        return token
    for name, value in entry.values.items():
        setattr(token, name, value)
    _write(entry)
    return token


def anything() -> bool:
    """Tell whether something waits to be written, by whatever thread."""
    return bool(_to_write)


def write(since: float = math.inf) -> None:
    """Write what this thread has left unwritten, as far as the database lets it.

    :param since: a moment on the monotonic clock. A new row is made for what was learned after it only: what is older
        may have been learned for another tenant.
    """
    here = threading.get_ident()
    for entry in [each for each in tuple(_to_write) if each.thread == here]:
        if entry.pk is not None or entry.began >= since:
            _write(entry)


def forget_all() -> None:
    """Forget everything, as a test does for the next one."""
    _entries.clear()
    _to_write.clear()


@contextmanager
def turn(key: Key, seconds: float) -> Iterator[None]:
    """Let one thread of this process at a time renew a token; none waits for longer than this."""
    lock = _turns.setdefault(key, threading.Lock())
    is_ours = lock.acquire(timeout=seconds)
    try:
        yield
    finally:
        if is_ours:
            lock.release()
        _turns.pop(key, None)


def _write(entry: _Entry) -> None:
    if in_transaction(entry.using) or not entry.values:
        return
    rows, values = AIRiskToken.objects.using(entry.using), dict(entry.values)
    try:
        if entry.pk is None:
            entry.pk = rows.get_or_create(**entry.owner)[0].pk
        row = rows.filter(pk=entry.pk, sealed=entry.sealed, **entry.owner)
        written = retrying(entry.using, lambda: row.update(**values))
    except DatabaseError as error:
        log_not_written(AIRiskToken(pk=entry.pk, **entry.owner), error)
        return
    _to_write.discard(entry)
    if written:
        _forget(entry)
        for tell in entry.tell:
            tell(AIRiskToken(pk=entry.pk, **entry.owner))


def log_not_written(token: AIRiskToken, error: Exception) -> None:
    message = "What was learned of AIRisk token %(token_id)s could not be written: %(why)s"
    log(logger, logging.WARNING, "token.not_written", message, token=token, why=error)


def _forget(entry: _Entry) -> None:
    _to_write.discard(entry)
    for key in [key for key, each in tuple(_entries.items()) if each is entry]:
        _entries.pop(key, None)


def _forget_old() -> None:
    now = timezone.now()
    for entry in tuple(_entries.values()):
        if len(_entries) >= MOST or not is_recent(entry.since, now, KEEP):
            _forget(entry)
