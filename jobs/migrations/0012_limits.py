import django.db.models.functions.datetime
from django.db import migrations, models

# Rows of a few tables live for moments, or are written often without a change to an index.
STORAGE = """
ALTER TABLE permits SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
ALTER TABLE buckets SET (fillfactor = 70);
"""

# The limit that holds for a concurrency key, if any. PostgreSQL puts its text in the place of a
# call in FROM.
LIMIT_OF = """
CREATE FUNCTION limit_of(wanted text) RETURNS SETOF limits LANGUAGE sql STABLE AS $$
    SELECT * FROM (
        SELECT * FROM limits WHERE key = wanted
        UNION ALL
        SELECT * FROM (
            SELECT * FROM limits
            WHERE key::text LIKE '%*' AND starts_with(wanted, left(key, -1))
            ORDER BY length(key) DESC LIMIT 1
        ) prefix
    ) found LIMIT 1
$$;
"""


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0011_retry_rules"),
    ]

    operations = [
        migrations.CreateModel(
            name="Bucket",
            fields=[
                ("key", models.CharField(max_length=100, primary_key=True, serialize=False)),
                ("tokens", models.FloatField()),
                ("filled_at", models.DateTimeField()),
            ],
            options={
                "db_table": "buckets",
            },
        ),
        migrations.CreateModel(
            name="Limit",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("key", models.CharField(max_length=101, unique=True)),
                ("max_running", models.IntegerField(blank=True, null=True)),
                ("rate_count", models.IntegerField(blank=True, null=True)),
                ("rate_seconds", models.FloatField(blank=True, null=True)),
                (
                    "changed_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                ),
            ],
            options={
                "db_table": "limits",
            },
        ),
        migrations.CreateModel(
            name="Permit",
            fields=[
                ("task_id", models.BigIntegerField(primary_key=True, serialize=False)),
                ("key", models.CharField(max_length=100)),
                ("attempt", models.IntegerField()),
                ("promoted_at", models.DateTimeField()),
            ],
            options={
                "db_table": "permits",
            },
        ),
        migrations.AddField(
            model_name="queue",
            name="max_running",
            field=models.IntegerField(
                blank=True,
                help_text="How many of its tasks may be queued or running at once",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="task",
            name="concurrency_key",
            field=models.CharField(
                blank=True, db_default="", help_text="What its limit counts it by", max_length=100
            ),
        ),
        migrations.AlterField(
            model_name="blocked",
            name="reason",
            field=models.CharField(
                choices=[
                    ("paused", "its job is paused"),
                    ("dependencies", "tasks it depends on have not ended"),
                    ("limit", "its concurrency key has a limit"),
                ],
                max_length=12,
            ),
        ),
        migrations.AddIndex(
            model_name="blocked",
            index=models.Index(
                condition=models.Q(("reason", "limit")),
                fields=["key", "lane", "score", "job_id", "task"],
                name="blocked_in_line",
            ),
        ),
        migrations.AddConstraint(
            model_name="queue",
            constraint=models.CheckConstraint(
                condition=models.Q(("max_running__gt", 0)), name="queues_max_running"
            ),
        ),
        migrations.AddIndex(
            model_name="limit",
            index=models.Index(
                condition=models.Q(("key__endswith", "*")),
                fields=["key"],
                name="limits_of_prefixes",
            ),
        ),
        migrations.AddConstraint(
            model_name="limit",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("max_running__gt", 0), ("max_running__isnull", False)),
                    models.Q(("max_running", None), ("rate_count__isnull", False)),
                    _connector="OR",
                ),
                name="limits_limit_something",
            ),
        ),
        migrations.AddConstraint(
            model_name="limit",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("rate_count", None), ("rate_seconds", None)),
                    models.Q(
                        ("rate_count__gt", 0),
                        ("rate_count__isnull", False),
                        ("rate_seconds__gt", 0),
                        ("rate_seconds__isnull", False),
                    ),
                    _connector="OR",
                ),
                name="limits_rate_whole",
            ),
        ),
        migrations.RunSQL(STORAGE, migrations.RunSQL.noop),
        migrations.RunSQL(LIMIT_OF, "DROP FUNCTION limit_of"),
    ]
