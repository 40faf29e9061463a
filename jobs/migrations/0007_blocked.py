import django.db.models.deletion
from django.db import migrations, models

STORAGE = """
ALTER TABLE blocked SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
"""


class Migration(migrations.Migration):
    dependencies = [("jobs", "0006_queues")]

    operations = [
        migrations.AddField(
            model_name="job",
            name="paused_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.CreateModel(
            name="Blocked",
            fields=[
                (
                    "task",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="+",
                        serialize=False,
                        to="jobs.task",
                    ),
                ),
                (
                    "reason",
                    models.CharField(choices=[("paused", "its job is paused")], max_length=12),
                ),
                ("key", models.CharField(blank=True, default="", max_length=100)),
                ("score", models.BigIntegerField()),
                ("job_id", models.BigIntegerField()),
                (
                    "lane",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="jobs.lane",
                    ),
                ),
            ],
            options={
                "db_table": "blocked",
                "indexes": [
                    models.Index(fields=["reason", "key", "task"], name="blocked_by"),
                ],
            },
        ),
        migrations.RunSQL(STORAGE, migrations.RunSQL.noop),
    ]
