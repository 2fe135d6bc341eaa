from django.db import migrations, models


def note_origins(apps, schema_editor):
    """What is stored was issued by the address that the settings name, as far as anybody knows."""
    from django.core.exceptions import ImproperlyConfigured

    from airisk_oauth import conf

    tokens = apps.get_model("airisk_oauth", "AIRiskToken").objects.using(schema_editor.connection.alias)
    for alias in tokens.exclude(sealed="").order_by().values_list("deployment", flat=True).distinct():
        try:
            origin = conf.deployment_origin(alias)
        except ImproperlyConfigured:
            # A function of the site may need tables that are not there yet.
            continue
        tokens.filter(deployment=alias, origin="").exclude(sealed="").update(origin=origin)


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
        # New labels only, without any SQL.
        migrations.AlterField(
            model_name="airisktoken",
            name="expires_at",
            field=models.DateTimeField(blank=True, null=True, verbose_name="expires"),
        ),
        migrations.AlterField(
            model_name="airisktoken",
            name="failure_count",
            field=models.PositiveIntegerField(default=0, verbose_name="consecutive failures"),
        ),
        migrations.AlterField(
            model_name="airisktoken",
            name="failure_kind",
            field=models.CharField(
                blank=True,
                choices=[
                    ("refused", "refused by AIRisk"),
                    ("person", "AIRisk requires a sign-in"),
                    ("unavailable", "AIRisk unavailable"),
                    ("invalid", "unusable response"),
                ],
                default="",
                max_length=12,
                verbose_name="kind of failure",
            ),
        ),
        migrations.AlterField(
            model_name="airisktoken",
            name="refused_anew_at",
            field=models.DateTimeField(blank=True, null=True, verbose_name="rejected although new"),
        ),
        migrations.AlterField(
            model_name="airisktoken",
            name="retry_at",
            field=models.DateTimeField(blank=True, null=True, verbose_name="next attempt not before"),
        ),
        migrations.AlterField(
            model_name="airisktoken",
            name="sealed",
            field=models.TextField(blank=True, default="", editable=False, verbose_name="encrypted token"),
        ),
    ]
