import django.db.models.deletion
from django.db import migrations, models

# An edge is updated once, when it is met: with room on its page that writes to no index.
STORAGE = """
ALTER TABLE dependencies SET (fillfactor = 70);
ALTER TABLE ended_parents
    SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
"""


def reference(related_name: str) -> models.ForeignKey:
    return models.ForeignKey(
        db_constraint=False,
        db_index=False,
        on_delete=django.db.models.deletion.CASCADE,
        related_name=related_name,
        to="jobs.task",
    )


class Migration(migrations.Migration):
    dependencies = [("jobs", "0007_blocked")]

    operations = [
        migrations.AddField(
            model_name="task",
            name="key",
            field=models.CharField(
                blank=True,
                db_default="",
                help_text="What its job's tasks call it",
                max_length=100,
            ),
        ),
        migrations.AddField(
            model_name="task",
            name="dependency_count",
            field=models.IntegerField(
                db_default=0, help_text="Of how many tasks it awaits the end"
            ),
        ),
        migrations.AddField(
            model_name="task",
            name="has_dependents",
            field=models.BooleanField(db_default=False),
        ),
        migrations.AddField(
            model_name="blocked",
            name="unmet",
            field=models.IntegerField(db_default=0),
        ),
        migrations.AlterField(
            model_name="blocked",
            name="reason",
            field=models.CharField(
                choices=[
                    ("paused", "its job is paused"),
                    ("dependencies", "tasks it depends on have not ended"),
                ],
                max_length=12,
            ),
        ),
        migrations.CreateModel(
            name="Dependency",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "task_id",
                        "depends_on_id",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "on_failure",
                    models.CharField(
                        choices=[("cancel", "Cancel"), ("run", "Run")],
                        default="cancel",
                        max_length=6,
                    ),
                ),
                ("met", models.BooleanField(default=False)),
                ("depends_on", reference("dependents")),
                ("task", reference("dependencies")),
            ],
            options={
                "db_table": "dependencies",
                "indexes": [models.Index(fields=["depends_on"], name="dependencies_on")],
            },
        ),
        migrations.CreateModel(
            name="EndedParent",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("task", reference("+")),
            ],
            options={"db_table": "ended_parents"},
        ),
        migrations.RunSQL(STORAGE, migrations.RunSQL.noop),
    ]
