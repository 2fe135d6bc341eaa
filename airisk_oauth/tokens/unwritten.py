"""Changes to a token's row that could not be written: inside a caller's transaction, or while the database failed.

A caller's transaction may be rolled back, and it may hold locks that other transactions need. So nothing of ours is
written inside it, and nobody waits for it. A renewed token is used at once and kept here, in this process, encrypted;
every read of the same row in this process gets it. It is written after the commit, when the view has returned, or by
the next caller who reads the row outside a transaction, whichever comes first. What is lost all the same costs one more
renewal: AIRisk issues as many tokens as it is asked for.

Entries are found by the encrypted text, which is random and bound to its owner. So no other row is ever taken for this
one, whichever tenant, schema or database the process works on next.
"""

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
from ..events import log_not_written
from ..models import AIRiskToken
from ..oauth.deployment import Deployment
from .turns import Key

#: How long an entry is kept that cannot be written, and how many entries are kept.
KEEP: Final = timedelta(hours=1)
MOST: Final = 1000
#: How often a thread tries to write an entry by itself.
TRIES: Final = 3

#: Called with the row once it is written.
Announce = Callable[[AIRiskToken], object]


@dataclass(repr=False, eq=False)
class _Entry:
    """Values to be written to a row.

    :ivar place: the search path that the application's first token belongs to; no encrypted text tells its tenant.
    :ivar test: the test that made this entry; other tests do not see it.
    :ivar is_written: kept for callers who read the row just before it was written.
    """

    pk: Any
    owner: dict[str, Any]
    sealed: str
    using: str
    place: str
    test: object
    values: dict[str, Any] = field(default_factory=dict)
    announce: list[Announce] = field(default_factory=list)
    version: int = 0
    is_written: bool = False
    tried: int = 0
    thread: int = field(default_factory=threading.get_ident)
    since: datetime = field(default_factory=lambda: timezone.now())


#: By the encrypted text that is on the row, and by the one that will be.
_entries: dict[Key, _Entry] = {}
_to_write: set[_Entry] = set()
_lock = threading.RLock()


def key_of(token: AIRiskToken, deployment: Deployment, using: str) -> Key:
    """Return what identifies a row, whichever tenant it belongs to."""
    return token.sealed or (search_path(using), using, deployment.alias, deployment.base_url, deployment.client_id)


def keep(key: Key, token: AIRiskToken, values: dict[str, Any], using: str, announce: Announce | None = None) -> None:
    """Remember values to be written to a row.

    :param key: of the row as it was read; see :func:`key_of`.
    :param token: the row, which may hold the values already.
    :param announce: called with the row once the values are written.
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
        if announce is not None:
            entry.announce.append(announce)
        _entries[key] = _entries[values.get("sealed") or key] = entry
        _to_write.add(entry)
    after_commit(using, partial(_write, entry))


def applied(token: AIRiskToken, deployment: Deployment, using: str) -> AIRiskToken:
    """Return a row that was just read with its unwritten values, which are written now if that is possible."""
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
    """Tell whether something waits to be written, by any thread."""
    return bool(_to_write)


def write() -> None:
    """Write what this thread has left unwritten, if possible. No database error is raised."""
    here = threading.get_ident()
    for entry in [each for each in tuple(_to_write) if each.thread == here]:
        if entry.using not in connections:
            # The database of a tenant that was removed.
            _forget(entry)
        elif _is_current(entry):
            _write(entry)


def forget_all() -> None:
    """Forget everything; for tests."""
    with _lock:
        _entries.clear()
        _to_write.clear()


def _write(entry: _Entry) -> None:
    if in_transaction(entry.using):
        return
    with _lock:
        if entry not in _to_write:
            return
        # Taken, so that no other thread announces it meanwhile.
        values, announce, entry.announce, version = dict(entry.values), entry.announce, [], entry.version
    try:
        written = _update(entry, values)
    except Exception as error:  # noqa: BLE001 - no page may fail because of this write
        with _lock:
            entry.announce, entry.tried = [*announce, *entry.announce], entry.tried + 1
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
            # Another process has written the row and announced it; or this tenant's rows are not visible now.
            _to_write.discard(entry)
    for each in announce if written else ():
        each(_row_of(entry))


def _update(entry: _Entry, values: dict[str, Any]) -> int | None:
    """Return how many rows were written; ``None`` if the connection is at another place than the row's."""
    rows = AIRiskToken.objects.using(entry.using)
    if entry.pk is None:
        if search_path(entry.using) != entry.place:
            return None
        entry.pk = retrying(entry.using, lambda: rows.get_or_create(**entry.owner))[0].pk
    if "sealed" in values:
        # Whoever holds a lease comes too late.
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
