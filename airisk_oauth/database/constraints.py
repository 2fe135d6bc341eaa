"""A unique constraint for some rows only, and an index for searches, on every database."""

from typing import Any

from django.db import models


class PartialUniqueConstraint(models.UniqueConstraint):
    """A ``UniqueConstraint`` with a condition, also on MySQL and MariaDB. Migrations see an ordinary one.

    MySQL and MariaDB have no partial indexes. There, a generated column is 1 in the rows that meet the condition and
    null in all others, and the unique index includes it: rows with a null in them are never duplicates. The column is
    stored, because a table can then be copied and checked without evaluating it. No statement has to name it, so that
    an older version of this package, which does not know it, can write to the table.
    """

    def constraint_sql(self, model: Any, schema_editor: Any) -> Any:
        if schema_editor.connection.features.supports_partial_indexes:
            return super().constraint_sql(model, schema_editor)
        return ", ".join(self._definitions(model, schema_editor))

    def create_sql(self, model: Any, schema_editor: Any) -> Any:
        if schema_editor.connection.features.supports_partial_indexes:
            return super().create_sql(model, schema_editor)
        added = ", ".join(f"ADD {definition}" for definition in self._definitions(model, schema_editor))
        return f"ALTER TABLE {schema_editor.quote_name(model._meta.db_table)} {added}"

    def remove_sql(self, model: Any, schema_editor: Any) -> Any:
        if schema_editor.connection.features.supports_partial_indexes:
            return super().remove_sql(model, schema_editor)
        table, name = map(schema_editor.quote_name, (model._meta.db_table, self.name))
        return f"ALTER TABLE {table} DROP INDEX {name}, DROP COLUMN {name}"

    def _definitions(self, model: Any, schema_editor: Any) -> tuple[str, str]:
        """Return the column and the index, which have the name of the constraint."""
        quote, name = schema_editor.quote_name, schema_editor.quote_name(self.name)
        columns = ", ".join(quote(model._meta.get_field(field).column) for field in self.fields)
        condition = self._get_condition_sql(model, schema_editor)  # type: ignore[attr-defined]
        return (
            f"{name} bool GENERATED ALWAYS AS (CASE WHEN {condition} THEN 1 END) STORED",
            f"UNIQUE INDEX {name} ({columns}, {name})",
        )

    def check(self, model: Any, connection: Any) -> Any:
        """Check as Django does, without the warning that there will be no constraint."""
        django_check = getattr(super(), "check", None) or super()._check  # type: ignore[misc]
        return [problem for problem in django_check(model, connection) if problem.id != "models.W036"]

    #: Its name in Django 5.
    _check = check

    def deconstruct(self) -> Any:
        _path, args, options = super().deconstruct()
        return "django.db.models.UniqueConstraint", args, options


def prefix_index(column: str, name: str) -> models.Index:
    """Return an index that finds what begins with a text; on PostgreSQL, an ordinary one does not."""
    return models.Index(fields=[column], name=name, opclasses=["varchar_pattern_ops"])
