"""A queryset that reads where writes go, and repeats a write that the database aborted."""

from typing import Any, Self

from django.db import models, router

from .transactions import retrying


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
