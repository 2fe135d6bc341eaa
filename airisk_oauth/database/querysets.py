"""A query set that reads where writes go, and repeats a write that a concurrent transaction broke off."""

from typing import Any, Self

from django.db import models, router

from .transactions import retrying


class PrimaryQuerySet(models.QuerySet[Any]):
    def primary(self) -> Self:
        """Read where writes go: a replica that lags would bring a replaced token back."""
        return self.using(router.db_for_write(self.model))

    def write(self, **values: Any) -> int:
        """``update()``, again where a concurrent transaction got in its way."""
        return retrying(self.db, lambda: self.update(**values))

    def forget(self) -> int:
        """``delete()``, again where a concurrent transaction got in its way."""
        return retrying(self.db, lambda: self.delete()[0])
