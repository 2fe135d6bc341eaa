from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ("airisk_oauth", "0006_mysql"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="airiskidentity",
            index=models.Index(fields=["userid"], name="airisk_oauth_identity_userid", opclasses=["varchar_pattern_ops"]),
        ),
        migrations.AddIndex(
            model_name="airiskidentity",
            index=models.Index(fields=["label"], name="airisk_oauth_label", opclasses=["varchar_pattern_ops"]),
        ),
        migrations.AddIndex(
            model_name="airisktoken",
            index=models.Index(fields=["userid"], name="airisk_oauth_token_userid", opclasses=["varchar_pattern_ops"]),
        ),
        migrations.AddIndex(
            model_name="airisktoken",
            index=models.Index(fields=["failure_trace_id"], name="airisk_oauth_trace_id", opclasses=["varchar_pattern_ops"]),
        ),
    ]
