from django.db import migrations, models
from django.db.models.functions import Coalesce, Now


def mark_lost(apps, schema_editor):
    """What needed a person before is not announced as news."""
    tokens = apps.get_model("airisk_oauth", "AIRiskToken").objects.using(schema_editor.connection.alias)
    tokens.filter(failure_kind__in=["refused", "person"]).update(lost_at=Coalesce("failing_since", "failed_at", Now()))


class Migration(migrations.Migration):

    dependencies = [
        ("airisk_oauth", "0003_origin"),
    ]

    operations = [
        migrations.AddField(
            model_name="airisktoken",
            name="lost_at",
            field=models.DateTimeField(blank=True, editable=False, null=True),
        ),
        migrations.RunPython(mark_lost, migrations.RunPython.noop, elidable=True),
    ]
