import django.db.models.deletion
from django.db import migrations, models
from django.db.models import Q


class Migration(migrations.Migration):
    dependencies = [("jobs", "0010_operations"), ("workers", "0001_initial")]

    operations = [
        migrations.AddField(
            model_name="task",
            name="retry",
            field=models.JSONField(
                help_text="When, where and whether it is tried again", null=True
            ),
        ),
        migrations.AddField(
            model_name="task",
            name="deadline_seconds",
            field=models.FloatField(
                help_text="For all attempts and waits, from when it was submitted or due",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="task",
            name="avoided_worker",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                help_text="It failed there last, and asked to be tried elsewhere",
                null=True,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="+",
                to="workers.worker",
            ),
        ),
        migrations.AddField(
            model_name="task",
            name="deadline_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddIndex(
            model_name="task",
            index=models.Index(
                condition=Q(completed_at=None, deadline_at__isnull=False),
                fields=["deadline_at"],
                name="tasks_deadline",
            ),
        ),
        migrations.AddIndex(
            model_name="task",
            index=models.Index(
                condition=Q(completed_at=None, avoided_worker__isnull=False),
                fields=["avoided_worker"],
                name="tasks_avoided",
            ),
        ),
    ]
