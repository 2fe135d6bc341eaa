"""A column that can be compared as a whole, but not searched."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from django.db import models

if TYPE_CHECKING:
    _TextField = models.TextField[str, str]
else:
    _TextField = models.TextField

_WHOLE: Final = ("exact", "in", "isnull")


class UnsearchableTextField(_TextField):
    """A text field without lookups that compare only a part of the text.

    In the admin, staff can filter a list by any lookup of the model's own columns, and with ``?sealed__startswith=``
    they could read a column letter by letter. In migrations this is an ordinary ``TextField``.
    """

    def deconstruct(self) -> tuple[str, str, Sequence[Any], dict[str, Any]]:
        name, _path, args, options = super().deconstruct()
        return name, "django.db.models.TextField", args, options

    def get_lookup(self, lookup_name: str) -> Any:
        return super().get_lookup(lookup_name) if lookup_name in _WHOLE else None

    def get_transform(self, lookup_name: str) -> None:
        return None
