from django.db import migrations, models


def note_origins(apps, schema_editor):
    """What is stored was issued by the address that the settings name, as far as anybody knows."""
    from airisk_oauth import conf

    tokens = apps.get_model("airisk_oauth", "AIRiskToken").objects.using(schema_editor.connection.alias)
    for alias in tokens.exclude(sealed="").order_by().values_list("deployment", flat=True).distinct():
        tokens.filter(deployment=alias, origin="").exclude(sealed="").update(origin=conf.deployment_origin(alias))


class Migration(migrations.Migration):

    dependencies = [
        ("airisk_oauth", "0002_sealing_policy"),
    ]

    operations = [
        migrations.AddField(
            model_name="airisktoken",
            name="origin",
            field=models.CharField(blank=True, db_default="", default="", editable=False, max_length=300),
        ),
        migrations.RunPython(note_origins, migrations.RunPython.noop, elidable=True),
    ]
