from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ("airisk_oauth", "0004_lost_at"),
    ]

    operations = [
        migrations.AddField(
            model_name="airiskidentity",
            name="label",
            field=models.CharField(
                blank=True,
                db_default="",
                default="",
                help_text="How pages name this person, for example “Mia Meyer”. If empty: the userid, unless it is a GUID.",
                max_length=150,
                verbose_name="displayed name",
            ),
        ),
    ]
