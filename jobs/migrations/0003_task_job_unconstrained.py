"""The check of tasks.job costs each submitted task a look-up and a lock, and cannot fail: a job and
its tasks are inserted in one transaction, and what deletes a job deletes its tasks first."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("jobs", "0002_storage")]

    operations = [
        migrations.AlterField(
            model_name="task",
            name="job",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="tasks",
                to="jobs.job",
            ),
        ),
    ]
