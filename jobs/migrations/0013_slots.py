from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("jobs", "0012_limits")]

    operations = [
        migrations.AddField(
            model_name="task",
            name="slots",
            field=models.SmallIntegerField(
                db_default=1, help_text="How many of its worker's it takes"
            ),
        ),
        migrations.AddField(
            model_name="lane",
            name="slots",
            field=models.SmallIntegerField(db_default=1, default=1),
        ),
        migrations.RemoveConstraint(model_name="lane", name="lanes_key"),
        migrations.AddConstraint(
            model_name="lane",
            constraint=models.UniqueConstraint(
                fields=("queue", "requires", "slots"), name="lanes_key"
            ),
        ),
    ]
