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
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from django.db import Error as DatabaseError
from django.db import connections
from django.utils import timezone

from ..database.expiry import is_recent
from ..database.transactions import after_commit, in_transaction, retrying, search_path, test_of
from ..events import log
from ..models import AIRiskToken
from ..oauth.deployment import Deployment
from .turns import Key

logger = logging.getLogger("airisk_oauth.renewal")

#: For how long it is kept where nothing lets it be written, and for how many rows.
KEEP: Final = timedelta(hours=1)
MOST: Final = 1000
#: How often a thread tries to write it by itself.
TRIES: Final = 3

Tell = Callable[[AIRiskToken], object]


@dataclass(repr=False, eq=False)
class _Entry:
    """What is to be on a row.

    :ivar place: where the row of the application's first token belongs, whose tenant no sealed text tells.
    :ivar test: the test that this was learned in; another one starts with nothing.
    :ivar is_written: whoever read the row just before that still finds here what is on it now.
    """

    pk: Any
    owner: dict[str, Any]
    sealed: str
    using: str
    place: str
    test: object
    values: dict[str, Any] = field(default_factory=dict)
    tell: list[Tell] = field(default_factory=list)
    version: int = 0
    is_written: bool = False
    tried: int = 0
    thread: int = field(default_factory=threading.get_ident)
    since: datetime = field(default_factory=lambda: timezone.now())


#: By the sealed text that the row has, and by the one that it is to have.
_entries: dict[Key, _Entry] = {}
_to_write: set[_Entry] = set()
_lock = threading.RLock()


def key_of(token: AIRiskToken, deployment: Deployment, using: str) -> Key:
    return token.sealed or (search_path(using), using, deployment.alias, deployment.base_url, deployment.client_id)


def keep(key: Key, token: AIRiskToken, values: dict[str, Any], using: str, tell: Tell | None = None) -> None:
    """Remember these values for a row.

    :param key: of the row as it was read, :func:`key_of`.
    :param token: the row, which may hold the values already.
    :param tell: called with the row once the values are written.
    """
    with _lock:
        _forget_old()
        entry = _entries.get(key)
        if entry is None or entry.is_written:
            owner = {"user_id": token.user_id, "deployment": token.deployment, "userid": token.userid}
            sealed, place = (key, "") if isinstance(key, str) else ("", key[0])
            entry = _Entry(token.pk, owner, sealed, using, place, test_of(using))
        entry.values.update(values)
        entry.version += 1
        entry.thread = threading.get_ident()
        if tell is not None:
            entry.tell.append(tell)
        _entries[key] = _entries[values.get("sealed") or key] = entry
        _to_write.add(entry)
    after_commit(using, partial(_write, entry))


def applied(token: AIRiskToken, deployment: Deployment, using: str) -> AIRiskToken:
    """Return a row that was just read as it ought to be; outside a transaction that is written now."""
    entry = _entries.get(key_of(token, deployment, using))
    if entry is None or not _is_current(entry):
        return token
    with _lock:
        for name, value in entry.values.items():
            setattr(token, name, value)
        if entry.is_written:
            return token
        _to_write.add(entry)
    after_commit(using, partial(_write, entry))
    _write(entry)
    return token


def anything() -> bool:
    """Tell whether something waits to be written, by whatever thread."""
    return bool(_to_write)


def write() -> None:
    """Write what this thread has left unwritten, as far as the database lets it. Raises nothing of the database's."""
    here = threading.get_ident()
    for entry in [each for each in tuple(_to_write) if each.thread == here]:
        if entry.using not in connections:
            # The database of a tenant that has left.
            _forget(entry)
        elif _is_current(entry):
            _write(entry)


def forget_all() -> None:
    """Forget everything, as a test does for the next one."""
    with _lock:
        _entries.clear()
        _to_write.clear()


def _write(entry: _Entry) -> None:
    if in_transaction(entry.using):
        return
    with _lock:
        if entry not in _to_write:
            return
        # Nobody else tells of it while this is on its way.
        values, tell, entry.tell, version = dict(entry.values), entry.tell, [], entry.version
    try:
        written = _update(entry, values)
    except Exception as error:  # noqa: BLE001 - a database may be gone, too; no page fails for a note of ours
        with _lock:
            entry.tell, entry.tried = [*tell, *entry.tell], entry.tried + 1
            if entry.tried >= TRIES or not isinstance(error, DatabaseError):
                _to_write.discard(entry)
        log_not_written(_row_of(entry), error)
        return
    with _lock:
        if entry.version == version and (written or (written == 0 and not entry.sealed)):
            _forget(entry)
            if entry.sealed and "sealed" in values:
                _entries[entry.sealed], entry.is_written = entry, True
        elif written:
            entry.sealed = values.get("sealed", entry.sealed)
        else:
            # What was written meanwhile stays; who wrote it told of it. Or this tenant's rows cannot be seen now.
            _to_write.discard(entry)
    for each in tell if written else ():
        each(_row_of(entry))


def _update(entry: _Entry, values: dict[str, Any]) -> int | None:
    """Return how many rows were written; ``None`` where the row's place is not at hand."""
    rows = AIRiskToken.objects.using(entry.using)
    if entry.pk is None:
        if search_path(entry.using) != entry.place:
            return None
        entry.pk = retrying(entry.using, lambda: rows.get_or_create(**entry.owner))[0].pk
    if "sealed" in values:
        # Who holds a lease is late.
        values |= {"lease": None, "lease_until": None}
    row = rows.filter(pk=entry.pk, sealed=entry.sealed, **entry.owner)
    return retrying(entry.using, lambda: row.update(**values))


def _row_of(entry: _Entry) -> AIRiskToken:
    return AIRiskToken(pk=entry.pk, **entry.owner)


def _is_current(entry: _Entry) -> bool:
    if is_recent(entry.since, timezone.now(), KEEP) and entry.test is test_of(entry.using):
        return True
    _forget(entry)
    return False


def log_not_written(token: AIRiskToken, error: Exception) -> None:
    message = "What was learned of AIRisk token %(token_id)s could not be written: %(why)s"
    log(logger, logging.WARNING, "token.not_written", message, token=token, why=error)


def _forget(entry: _Entry) -> None:
    with _lock:
        _to_write.discard(entry)
        for key in [key for key, each in _entries.items() if each is entry]:
            del _entries[key]


def _forget_old() -> None:
    now = timezone.now()
    for entry in tuple(_entries.values()):
        if len(_entries) >= MOST or not is_recent(entry.since, now, KEEP):
            _forget(entry)
