"""What MySQL and MariaDB lacked: texts that are compared letter by letter, and one application's token a deployment.

Other databases have had both since the first migration, and are left as they are.
"""

from django.db import IntegrityError, migrations
from django.db.models import Count, Q

from airisk_oauth.database.constraints import PartialUniqueConstraint

TRIES = 5

# One statement a table, because each copies it.
COMPARE_EXACTLY = (
    "ALTER TABLE airisk_oauth_airiskidentity"
    " MODIFY deployment varchar(64) COLLATE utf8mb4_bin NOT NULL,"
    " MODIFY userid varchar(255) COLLATE utf8mb4_bin NOT NULL",
    "ALTER TABLE airisk_oauth_airisktoken"
    " MODIFY deployment varchar(64) COLLATE utf8mb4_bin NOT NULL,"
    " MODIFY userid varchar(255) COLLATE utf8mb4_bin NOT NULL,"
    " MODIFY sealed longtext COLLATE utf8mb4_bin NOT NULL,"
    " MODIFY origin varchar(300) COLLATE utf8mb4_bin DEFAULT '' NOT NULL",
    "ALTER TABLE airisk_oauth_pendingauthorization"
    " MODIFY deployment varchar(64) COLLATE utf8mb4_bin NOT NULL,"
    " MODIFY userid varchar(255) COLLATE utf8mb4_bin NOT NULL",
)
ONE_APPLICATION_TOKEN = PartialUniqueConstraint(
    fields=["deployment"], condition=Q(user=None), name="airisk_oauth_one_application_token"
)


def compare_exactly(apps, schema_editor):
    if schema_editor.connection.vendor == "mysql":
        for statement in COMPARE_EXACTLY:
            schema_editor.execute(statement)


def add_constraint(apps, schema_editor):
    if schema_editor.connection.vendor != "mysql" or _is_there(schema_editor):
        return
    model = apps.get_model("airisk_oauth", "AIRiskToken")
    for tried in range(1, TRIES + 1):
        _keep_one_application_token(model.objects.using(schema_editor.connection.alias))
        try:
            schema_editor.add_constraint(model, ONE_APPLICATION_TOKEN)
        except IntegrityError:
            # The version that is still running has just stored another one.
            if tried == TRIES:
                raise
        else:
            return


def remove_constraint(apps, schema_editor):
    if schema_editor.connection.vendor == "mysql" and _is_there(schema_editor):
        schema_editor.remove_constraint(apps.get_model("airisk_oauth", "AIRiskToken"), ONE_APPLICATION_TOKEN)


def _is_there(schema_editor):
    """Tell whether an earlier attempt added the constraint; MySQL undoes nothing when a migration fails."""
    with schema_editor.connection.cursor() as cursor:
        constraints = schema_editor.connection.introspection.get_constraints(cursor, "airisk_oauth_airisktoken")
    return ONE_APPLICATION_TOKEN.name in constraints


def _keep_one_application_token(tokens):
    """Delete all but the best of a deployment's rows for the application, none of which could be used any more.

    Simultaneous first callers had stored several. All are tokens of the same client, so nothing is lost with the others.
    The best is the one that was received last; a row without a token is there only to be leased.
    """
    several = tokens.filter(user=None).values_list("deployment").annotate(Count("pk")).filter(pk__count__gt=1)
    for deployment, _number in list(several.order_by()):
        rows = tokens.filter(user=None, deployment=deployment).defer("sealed")
        with_token = rows.exclude(sealed="").order_by("-renewed_at", "pk")
        best = with_token.first() or rows.order_by("pk").first()
        rows.exclude(pk=best.pk).delete()


class Migration(migrations.Migration):

    dependencies = [
        ("airisk_oauth", "0005_identity_label"),
    ]

    operations = [
        # Not undone: two aliases that differ only in case may have a row each by then.
        migrations.RunPython(compare_exactly, migrations.RunPython.noop, atomic=False),
        migrations.RunPython(add_constraint, remove_constraint, atomic=False),
    ]
