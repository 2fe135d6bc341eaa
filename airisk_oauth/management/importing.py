"""The import of AIRisk identities from a CSV file: all of them, or none if any row is wrong."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import BaseUserManager
from django.db import connections, transaction

from .. import conf
from ..models import AIRiskIdentity
from .csv_rows import NO_PROBLEM, REPEATED, Row, Sentence, problem_of, read
from .users import find_user

BATCH: Final = 500


@dataclass
class Result:
    """What an import saved, or would save.

    :ivar total: how many rows there are.
    :ivar wrong: how many of them are wrong; if any is, nothing was saved.
    """

    total: int = 0
    wrong: int = 0
    added: int = 0
    changed: int = 0

    @property
    def unchanged(self) -> int:
        return self.total - self.added - self.changed


#: Called with identities that were added, and with those that were changed, each with its userid and label before.
OnSaved = Callable[[list[AIRiskIdentity], list[tuple[AIRiskIdentity, str]]], object]


def import_identities(
    lines: Iterable[str],
    deployment: str,
    *,
    on_wrong: Callable[[Row], object],
    on_saved: OnSaved = lambda _added, _changed: None,
    dry_run: bool = False,
) -> Result:
    """Check all rows of a file and, if none is wrong, save them. Memory does not grow with the file.

    :param lines: the file's lines, without a byte order mark.
    :param deployment: the alias for rows that name none.
    :param on_wrong: called with each row that is wrong.
    :param dry_run: save nothing, but return what would be saved.
    :raises .csv_rows.UnreadableFile: it is not such a file.
    :raises django.core.exceptions.ImproperlyConfigured: the settings are wrong.
    :raises django.db.Error: the database failed, and nothing was saved.
    """
    result = Result()
    # An empty name makes a database in a temporary file, which is deleted when it is closed.
    with closing(sqlite3.connect("")) as kept:
        kept.execute("CREATE TABLE rows (user, deployment, line, userid, label, PRIMARY KEY (user, deployment))")
        for row in _checked(read(lines, deployment), conf.aliases(), kept):
            result.total += 1
            if row.problem:
                result.wrong += 1
                on_wrong(row)
        if not result.wrong:
            rows = kept.execute("SELECT user, deployment, userid, label FROM rows ORDER BY user, deployment")
            _save(rows, result, on_saved, dry_run=dry_run)
    return result


def _save(rows: sqlite3.Cursor, result: Result, on_saved: OnSaved, *, dry_run: bool) -> None:
    identities = AIRiskIdentity.objects.primary()
    with transaction.atomic(using=identities.db):
        if connections[identities.db].features.has_select_for_update:
            # Imports wait for each other here. Later they could deadlock, because a database may sort keys in another
            # way than this module does, and so lock rows in another order.
            identities.order_by("pk").select_for_update().values_list("pk").first()
        else:
            # A transaction on SQLite that starts by reading may not be able to write later.
            identities.filter(pk=0).update(userid="")
        while batch := rows.fetchmany(BATCH):
            added, changed = _compare(batch, identities)
            identities.bulk_create(added)
            _update([identity for identity, _before in changed], identities)
            result.added += len(added)
            result.changed += len(changed)
            on_saved(added, changed)
        transaction.set_rollback(dry_run, using=identities.db)


def _update(changed: list[AIRiskIdentity], identities: Any) -> None:
    """Save changed identities, whose rows are locked.

    ``bulk_update`` would take several times as long: its statement goes through all keys for each row.
    """
    named = connections[identities.db].features.supports_update_conflicts_with_target
    unique: dict[str, Any] = {"unique_fields": ["id"]} if named else {}
    identities.bulk_create(changed, update_conflicts=True, update_fields=["userid", "label"], **unique)


def _compare(batch: list[Any], identities: Any) -> tuple[list[AIRiskIdentity], list[tuple[AIRiskIdentity, str]]]:
    """Lock the identities that these rows are about, and return what the rows add and change."""
    to_python = get_user_model()._meta.pk.to_python
    wanted = {(to_python(user), alias): (userid, label) for user, alias, userid, label in batch}
    known = identities.filter(user__in={user for user, _alias in wanted}).select_for_update()
    existing = {(each.user_id, each.deployment): each for each in known.order_by("user_id", "deployment")}
    added: list[AIRiskIdentity] = []
    changed: list[tuple[AIRiskIdentity, str]] = []
    for owner, (userid, label) in wanted.items():
        identity = existing.get(owner)
        if identity is None:
            user, alias = owner
            identity = AIRiskIdentity(user_id=user, deployment=alias)
            added.append(identity)
        elif identity.userid != userid or label not in (None, identity.label):
            changed.append((identity, describe(identity)))
        if label is not None or identity.userid != userid:
            # A label names a userid: it must not stay with another one.
            identity.label = label or ""
        identity.userid = userid
    return added, changed


def describe(identity: AIRiskIdentity) -> str:
    """Return the userid, and the label if there is one."""
    return f"{identity.userid}, {identity.label}" if identity.label else identity.userid


def _users(names: set[str]) -> dict[str, Any]:
    """Return the users with these natural keys, by key; keys without a user are left out."""
    model: Any = get_user_model()
    manager = model._default_manager
    found: dict[str, Any] = {}
    # No user can have such a name, and PostgreSQL raises an error for it.
    names = {name for name in names if "\0" not in name}
    keyed = getattr(type(manager), "get_by_natural_key", None)
    by_username = keyed in (None, BaseUserManager.get_by_natural_key)
    if by_username and model._meta.get_field(model.USERNAME_FIELD).unique:
        found = manager.in_bulk(names, field_name=model.USERNAME_FIELD)
    for name in names - found.keys():
        with suppress(model.DoesNotExist, model.MultipleObjectsReturned):
            found[name] = find_user(name)
    return found


def _checked(rows: Iterator[Row], aliases: list[str], kept: sqlite3.Connection) -> Iterator[Row]:
    """Yield the rows, each with its problem, if any; keep those that have none."""
    while batch := list(islice(rows, BATCH)):
        users = _users({row.name for row in batch})
        for row in batch:
            problem = problem_of(row, users, aliases)
            yield row._replace(problem=problem or _keep(row, users[row.name].pk, kept))


def _keep(row: Row, user: Any, kept: sqlite3.Connection) -> Sentence:
    """Keep a row, unless there is one about this user already."""
    owner = (user if isinstance(user, int) else str(user), row.deployment)
    values = (*owner, row.line, row.userid, row.label)
    if kept.execute("INSERT OR IGNORE INTO rows VALUES (?, ?, ?, ?, ?)", values).rowcount:
        return NO_PROBLEM
    [line] = kept.execute("SELECT line FROM rows WHERE user = ? AND deployment = ?", owner).fetchone()
    return Sentence(REPEATED, {"line": line})
