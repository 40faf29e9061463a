from django.db import migrations, models
import django.db.models.functions.datetime


class Migration(migrations.Migration):

    dependencies = [
        ('jobs', '0009_unique_keys'),
    ]

    operations = [
        migrations.CreateModel(
            name='Operation',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('action', models.CharField(choices=[('cancel', 'Cancel'), ('retry', 'Retry'), ('prioritise', 'Prioritise')], max_length=10)),
                ('target', models.CharField(choices=[('tasks', 'Tasks'), ('jobs', 'tasks of jobs')], max_length=5)),
                ('filter', models.JSONField(help_text="As the query parameters of the target's list")),
                ('priority', models.SmallIntegerField(null=True)),
                ('requested_by', models.CharField(blank=True, default='', max_length=150)),
                ('total', models.IntegerField(help_text='Of tasks it was for, counted up to a limit')),
                ('done', models.BigIntegerField(db_default=0, help_text='Of tasks it changed')),
                ('position', models.BigIntegerField(db_default=0)),
                ('until', models.BigIntegerField(help_text='The last task there was when it was asked for')),
                ('created_at', models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ('started_at', models.DateTimeField(null=True)),
                ('cancelled_at', models.DateTimeField(null=True)),
                ('ended_at', models.DateTimeField(null=True)),
                ('error', models.TextField(blank=True, default='')),
            ],
            options={
                'db_table': 'operations',
                'indexes': [models.Index(condition=models.Q(('ended_at', None)), fields=['id'], name='operations_open'), models.Index(fields=['ended_at'], name='operations_age')],
            },
        ),
    ]
