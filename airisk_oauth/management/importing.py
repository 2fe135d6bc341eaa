"""The import of AIRisk identities from a CSV file: all of them, or none if any row is wrong.

Its sentences are English; a page translates them, a command does not.
"""

import csv
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final, NamedTuple

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import BaseUserManager
from django.db import connections, transaction
from django.utils.translation import gettext, gettext_noop

from .. import conf
from ..models import AIRiskIdentity
from .users import find_user

COLUMNS: Final = ("user", "userid", "deployment", "label")
#: Spreadsheets separate fields by one of these, depending on their language.
DELIMITERS: Final = ",;\t"
BATCH: Final = 500


class Sentence(NamedTuple):
    """A sentence in English, and what has to be put into it; false if there is none."""

    text: str
    values: dict[str, Any]

    def __bool__(self) -> bool:
        return bool(self.text)

    def __str__(self) -> str:
        return self.text % self.values

    @property
    def translated(self) -> str:
        return gettext(self.text) % self.values


NO_PROBLEM: Final = Sentence("", {})
_NOT_UTF_8: Final = gettext_noop("it is not in UTF-8. In a spreadsheet, save it as CSV UTF-8.")
_WRONG_COLUMNS: Final = gettext_noop(
    "its first line must name the columns user, userid and, optionally, deployment and label"
)
_WRONG_FORMAT: Final = gettext_noop("in the row after line %(line)d, %(error)s")
_WRONG_NUMBER: Final = gettext_noop("it has more or fewer fields than the first line.")
_NO_USER: Final = gettext_noop("there is no user %(name)r.")
_NO_USERID: Final = gettext_noop("%(userid)r is not a valid userid.")
_NO_LABEL: Final = gettext_noop("%(label)r is not a valid label.")
_NO_DEPLOYMENT: Final = gettext_noop("there is no deployment %(alias)r.")
_REPEATED: Final = gettext_noop("line %(line)d is already about this user.")


class UnreadableFile(ValueError):
    """The file is not what is expected, and no row was looked at.

    :ivar why: goes after "… cannot be read: ".
    """

    def __init__(self, text: str, **values: Any) -> None:
        self.why = Sentence(text, values)
        super().__init__(str(self.why))


class Row(NamedTuple):
    """A row of the file.

    :ivar line: the number of the line that it ends on.
    :ivar name: the user's natural key.
    :ivar label: as in :class:`AIRiskIdentity`; ``None`` if the file has no such column.
    :ivar problem: what is wrong with the row.
    """

    line: int
    name: str = ""
    userid: str = ""
    deployment: str = ""
    label: str | None = None
    problem: Sentence = NO_PROBLEM


@dataclass
class Changes:
    """What an import saves, or would save.

    :ivar changed: the identities, each with its userid and label before.
    """

    added: list[AIRiskIdentity] = field(default_factory=list)
    changed: list[tuple[AIRiskIdentity, str]] = field(default_factory=list)
    unchanged: int = 0


class Import:
    """The rows of a file, checked, and saved by :meth:`save` if :attr:`wrong` is empty.

    :param lines: the file's lines, without a byte order mark.
    :param deployment: the alias for rows that name none.
    :raises UnreadableFile: it is not such a file.
    :raises django.core.exceptions.ImproperlyConfigured: the settings are wrong.
    """

    def __init__(self, lines: Iterable[str], deployment: str) -> None:
        try:
            rows = list(_rows(iter(lines), deployment))
        except UnicodeDecodeError:
            raise UnreadableFile(_NOT_UTF_8) from None
        aliases = conf.aliases()
        self.users = _users({row.name for row in rows})
        self.rows = list(_checked(rows, self.users, aliases))
        self.wrong = [row for row in self.rows if row.problem]

    def save(self, *, dry_run: bool = False) -> Changes:
        """Save all rows, and return what that changed; with ``dry_run``, what it would change."""
        identities = AIRiskIdentity.objects.primary()
        changes = Changes()
        # Two imports at the same time lock rows in the same order; otherwise they could deadlock.
        rows = sorted(self.rows, key=lambda row: (self.users[row.name].pk, row.deployment))
        with transaction.atomic(using=identities.db):
            if not connections[identities.db].features.has_select_for_update:
                # A transaction on SQLite that starts by reading may not be able to write later.
                identities.filter(pk=0).update(userid="")
            for start in range(0, len(rows), BATCH):
                self._compare(rows[start : start + BATCH], identities, changes)
            identities.bulk_create(changes.added, BATCH)
            identities.bulk_update([identity for identity, _before in changes.changed], ["userid", "label"], BATCH)
            transaction.set_rollback(dry_run, using=identities.db)
        changes.unchanged = len(rows) - len(changes.added) - len(changes.changed)
        return changes

    def _compare(self, batch: list[Row], identities: Any, changes: Changes) -> None:
        """Note what these rows change, and lock the identities that they are about."""
        known = identities.filter(user__in=[self.users[row.name].pk for row in batch])
        known = known.select_for_update().order_by("user_id", "deployment")
        existing = {(identity.user_id, identity.deployment): identity for identity in known}
        for row in batch:
            user = self.users[row.name]
            identity = existing.get((user.pk, row.deployment))
            if identity is None:
                identity = AIRiskIdentity(user=user, deployment=row.deployment)
                changes.added.append(identity)
            elif identity.userid != row.userid or row.label not in (None, identity.label):
                changes.changed.append((identity, describe(identity)))
            _apply(row, identity)


def describe(identity: AIRiskIdentity) -> str:
    """Return the userid, and the label if there is one."""
    return f"{identity.userid}, {identity.label}" if identity.label else identity.userid


def _apply(row: Row, identity: AIRiskIdentity) -> None:
    if row.label is not None or identity.userid != row.userid:
        # A label names a userid: it must not stay with another one.
        identity.label = row.label or ""
    identity.userid = row.userid


def _rows(lines: Iterator[str], default: str) -> Iterator[Row]:
    header = next(lines, "")
    reader = csv.reader(chain([header], lines), delimiter=max(DELIMITERS, key=header.count), strict=True)
    last = 0
    try:
        columns = [name.strip().lower() for name in next(reader, [])]
        if not {"user", "userid"} <= set(columns) <= set(COLUMNS) or len(columns) > len(set(columns)):
            raise UnreadableFile(_WRONG_COLUMNS)
        last = reader.line_num
        for fields in reader:
            last = reader.line_num
            if any(map(str.strip, fields)):
                yield _row(last, columns, fields, default)
    except csv.Error as error:
        # An unclosed quote is only noticed at the end of the file.
        raise UnreadableFile(_WRONG_FORMAT, line=last, error=error) from None


def _row(line: int, columns: list[str], fields: list[str], default: str) -> Row:
    if len(fields) != len(columns):
        return Row(line, problem=Sentence(_WRONG_NUMBER, {}))
    values = dict(zip(columns, map(str.strip, fields), strict=True))
    return Row(line, values["user"], values["userid"], values.get("deployment") or default, values.get("label"))


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


def _checked(rows: list[Row], users: dict[str, Any], aliases: list[str]) -> Iterator[Row]:
    """Yield the rows, each with its problem, if any."""
    first: dict[tuple[Any, str], int] = {}
    for row in rows:
        problem = row.problem or _problem(row, users, aliases)
        if not problem and (line := first.setdefault((users[row.name].pk, row.deployment), row.line)) != row.line:
            problem = Sentence(_REPEATED, {"line": line})
        yield row._replace(problem=problem)


def _problem(row: Row, users: dict[str, Any], aliases: list[str]) -> Sentence:
    if row.name not in users:
        return Sentence(_NO_USER, {"name": row.name})
    if not conf.is_userid(row.userid):
        return Sentence(_NO_USERID, {"userid": row.userid})
    if row.label is not None and not (row.label.isprintable() and len(row.label) <= conf.MAX_LABEL):
        return Sentence(_NO_LABEL, {"label": row.label})
    if row.deployment not in aliases:
        return Sentence(_NO_DEPLOYMENT, {"alias": row.deployment})
    return NO_PROBLEM
