"""A queryset that reads where writes go, and repeats a write that the database aborted."""

from typing import Any, Self, TypeVar

from django.db import models, router

from .transactions import retrying

Row = TypeVar("Row", bound=models.Model, covariant=True)


class PrimaryQuerySet(models.QuerySet[Any]):
    def primary(self) -> Self:
        """Use the database for writes, also to read: a lagging replica would return a token that was replaced."""
        return self.using(router.db_for_write(self.model))

    def write(self, **values: Any) -> int:
        """Do what ``update()`` does, and repeat it if a concurrent transaction made it fail."""
        return retrying(self.db, lambda: self.update(**values))

    def forget(self) -> int:
        """Do what ``delete()`` does, and repeat it if a concurrent transaction made it fail."""
        return retrying(self.db, lambda: self.delete()[0])


class PrimaryManager(models.Manager[Row]):
    """A manager for these querysets.

    Written by hand, because ``as_manager()`` inspects every method of ``QuerySet`` whenever a process starts.
    """

    def get_queryset(self) -> PrimaryQuerySet:
        return PrimaryQuerySet(self.model, using=self._db)

    def primary(self) -> PrimaryQuerySet:
        return self.get_queryset().primary()
