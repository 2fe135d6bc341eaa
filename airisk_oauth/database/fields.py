"""Columns that every database compares letter by letter, and one that can be compared only as a whole.

Migrations see ordinary fields.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from django.db import models
from django.db.models.lookups import IContains

if TYPE_CHECKING:
    _CharField = models.CharField[str, str]
    _TextField = models.TextField[str, str]
else:
    _CharField, _TextField = models.CharField, models.TextField

#: How MySQL and MariaDB compare letter by letter, and how they ignore case. With the collations that they choose
#: themselves, "a" is equal to "A" and to "á".
EXACT: Final = "utf8mb4_bin"
IGNORING_CASE: Final = "utf8mb4_general_ci"

_WHOLE: Final = ("exact", "in", "isnull")


class ExactCharField(_CharField):
    """A short text that is equal only to itself, also on MySQL and MariaDB; ``icontains`` ignores case all the same."""

    def db_parameters(self, connection: Any) -> Any:
        return _exactly(super().db_parameters(connection), connection)

    def deconstruct(self) -> tuple[str, str, Sequence[Any], dict[str, Any]]:
        name, _path, args, options = super().deconstruct()
        return name, "django.db.models.CharField", args, options


@ExactCharField.register_lookup
class _IContains(IContains):
    """A staff member who searches the admin does not care about case."""

    def process_lhs(self, compiler: Any, connection: Any, lhs: Any = None) -> Any:
        sql, params = super().process_lhs(compiler, connection, lhs)
        return (f"{sql} COLLATE {IGNORING_CASE}" if connection.vendor == "mysql" else sql), params


class UnsearchableTextField(_TextField):
    """A text of which no look-up tells a part; equal only to itself, as an :class:`ExactCharField`.

    The admin lets staff filter a list by any look-up of its own model's columns, and ``?sealed__startswith=`` would
    read a column letter by letter.
    """

    def db_parameters(self, connection: Any) -> Any:
        return _exactly(super().db_parameters(connection), connection)

    def deconstruct(self) -> tuple[str, str, Sequence[Any], dict[str, Any]]:
        name, _path, args, options = super().deconstruct()
        return name, "django.db.models.TextField", args, options

    def get_lookup(self, lookup_name: str) -> Any:
        return super().get_lookup(lookup_name) if lookup_name in _WHOLE else None

    def get_transform(self, lookup_name: str) -> None:
        return None


def _exactly(parameters: Any, connection: Any) -> Any:
    """Return the parameters of a column, with the collation that makes it exact."""
    return parameters | {"collation": EXACT} if connection.vendor == "mysql" else parameters
