import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = [migrations.swappable_dependency(settings.AUTH_USER_MODEL)]

    operations = [
        migrations.CreateModel(
            name="Event",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("connected", "Connected to AIRisk"),
                            ("renewed", "Token renewed"),
                            ("failed", "Token not renewed"),
                            ("disconnected", "Disconnected, token forgotten"),
                            ("fetched", "Conversations fetched"),
                        ],
                        max_length=12,
                    ),
                ),
                ("failure", models.CharField(blank=True, default="", max_length=12)),
                ("happened_at", models.DateTimeField(auto_now_add=True)),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="+", to=settings.AUTH_USER_MODEL
                    ),
                ),
            ],
            options={"verbose_name": "event", "verbose_name_plural": "events"},
        )
    ]
