"""The rows of a CSV file of AIRisk identities, and what can be wrong with them.

The sentences are English; a page translates them, a command does not.
"""

import csv
from collections.abc import Container, Iterable, Iterator
from itertools import chain
from typing import Any, Final, NamedTuple

from django.utils.translation import gettext, gettext_noop

from .. import conf

COLUMNS: Final = ("user", "userid", "deployment", "label")
#: Spreadsheets separate fields by one of these, depending on their language.
DELIMITERS: Final = ",;\t"


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
REPEATED: Final = gettext_noop("line %(line)d is already about this user.")


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


def read(lines: Iterable[str], default: str) -> Iterator[Row]:
    """Yield the rows of a file, without what is wrong with each of them, except for a wrong number of fields.

    :param lines: without a byte order mark.
    :param default: the alias for rows that name no deployment.
    :raises UnreadableFile: it is not such a file.
    """
    lines = iter(lines)
    last = 0
    try:
        header = next(lines, "")
        reader = csv.reader(chain([header], lines), delimiter=max(DELIMITERS, key=header.count), strict=True)
        columns = [name.strip().lower() for name in next(reader, [])]
        if not {"user", "userid"} <= set(columns) <= set(COLUMNS) or len(columns) > len(set(columns)):
            raise UnreadableFile(_WRONG_COLUMNS)
        last = reader.line_num
        for fields in reader:
            last = reader.line_num
            if any(map(str.strip, fields)):
                yield _row(last, columns, fields, default)
    except UnicodeDecodeError:
        raise UnreadableFile(_NOT_UTF_8) from None
    except csv.Error as error:
        # An unclosed quote is only noticed at the end of the file.
        raise UnreadableFile(_WRONG_FORMAT, line=last, error=error) from None


def _row(line: int, columns: list[str], fields: list[str], default: str) -> Row:
    if len(fields) != len(columns):
        return Row(line, problem=Sentence(_WRONG_NUMBER, {}))
    values = dict(zip(columns, map(str.strip, fields), strict=True))
    return Row(line, values["user"], values["userid"], values.get("deployment") or default, values.get("label"))


def problem_of(row: Row, users: Container[str], aliases: list[str]) -> Sentence:
    """Return what is wrong with a row.

    :param users: the names of the users that there are.
    """
    if row.problem:
        return row.problem
    if row.name not in users:
        return Sentence(_NO_USER, {"name": row.name})
    if not conf.is_userid(row.userid):
        return Sentence(_NO_USERID, {"userid": row.userid})
    if row.label is not None and not (row.label.isprintable() and len(row.label) <= conf.MAX_LABEL):
        return Sentence(_NO_LABEL, {"label": row.label})
    if row.deployment not in aliases:
        return Sentence(_NO_DEPLOYMENT, {"alias": row.deployment})
    return NO_PROBLEM
