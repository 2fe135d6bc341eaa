"""Columns that every database compares exactly, and one that can be compared as a whole, but not searched.

In migrations these are ordinary fields.
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

#: Collations of MySQL and MariaDB. With the ones that they choose by default, "a" equals "A" and "á".
EXACT: Final = "utf8mb4_bin"
IGNORING_CASE: Final = "utf8mb4_general_ci"

_WHOLE: Final = ("exact", "in", "isnull")


class ExactCharField(_CharField):
    """A short text that is compared exactly, on MySQL and MariaDB too. The lookup ``icontains`` still ignores case."""

    def db_parameters(self, connection: Any) -> Any:
        return _exactly(super().db_parameters(connection), connection)

    def deconstruct(self) -> tuple[str, str, Sequence[Any], dict[str, Any]]:
        name, _path, args, options = super().deconstruct()
        return name, "django.db.models.CharField", args, options


@ExactCharField.register_lookup
class _IContains(IContains):
    """Ignores case, for searches in the admin."""

    def process_lhs(self, compiler: Any, connection: Any, lhs: Any = None) -> Any:
        sql, params = super().process_lhs(compiler, connection, lhs)
        return (f"{sql} COLLATE {IGNORING_CASE}" if connection.vendor == "mysql" else sql), params


class UnsearchableTextField(_TextField):
    """A text field without lookups that compare only a part of the text; compared exactly, as :class:`ExactCharField`.

    In the admin, staff can filter a list by any lookup of the model's own columns, and with ``?sealed__startswith=``
    they could read a column letter by letter.
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
    """Return the parameters of a column, with the collation that compares exactly."""
    return parameters | {"collation": EXACT} if connection.vendor == "mysql" else parameters
