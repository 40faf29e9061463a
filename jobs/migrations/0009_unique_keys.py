from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('jobs', '0008_dependencies'),
    ]

    operations = [
        migrations.AddField(
            model_name='job',
            name='unique',
            field=models.JSONField(help_text='A specs.Unique, if it has a unique key', null=True),
        ),
        migrations.AddField(
            model_name='idempotencykey',
            name='joined',
            field=models.BooleanField(db_default=False, help_text='The job was there before'),
        ),
        migrations.CreateModel(
            name='UniqueKey',
            fields=[
                ('pk', models.CompositePrimaryKey('scope', 'key', blank=True, editable=False, primary_key=True, serialize=False)),
                ('scope', models.CharField(help_text="A queue's name; empty: all queues", max_length=40)),
                ('key', models.CharField(max_length=200)),
                ('job_id', models.BigIntegerField()),
                ('until', models.DateTimeField(help_text="The end of its job's window", null=True)),
            ],
            options={
                'db_table': 'unique_keys',
                'indexes': [models.Index(fields=['job_id'], name='unique_keys_of_job')],
            },
        ),
    ]
