from django.db import models
from django.db.models.functions import Now


class Job(models.Model):
    """A named set of tasks, submitted at once.

    No report of a task touches this row; the scheduler settles `finished_at` once every task of
    the job has ended.
    """

    name = models.CharField(max_length=200)
    queue = models.CharField(max_length=40, default="default")
    labels = models.JSONField(default=dict, blank=True)
    unique = models.JSONField(null=True, help_text="A specs.Unique, if it has a unique key")
    submitted_by = models.CharField(max_length=150, blank=True, default="")
    created_at = models.DateTimeField(db_default=Now())
    paused_at = models.DateTimeField(null=True)
    cancelled_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    joined = False  # whether a submit found it by its unique key, and stored nothing

    class Meta:
        db_table = "jobs"
        indexes = [
            models.Index(
                name="jobs_unfinished", fields=["id"], condition=models.Q(finished_at=None)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} #{self.pk}"


class Queue(models.Model):
    """A name that jobs are submitted to and workers serve; made with its first lane."""

    name = models.CharField(max_length=40, unique=True)
    paused_at = models.DateTimeField(null=True)
    max_running = models.IntegerField(
        null=True, blank=True, help_text="How many of its tasks may be queued or running at once"
    )

    class Meta:
        db_table = "queues"
        constraints = [
            models.CheckConstraint(name="queues_max_running", condition=models.Q(max_running__gt=0))
        ]

    def __str__(self) -> str:
        return self.name


class IdempotencyKey(models.Model):
    """The job that a submit with this key made, committed with it; pruned after a day or so."""

    pk = models.CompositePrimaryKey("owner", "key")
    owner = models.CharField(max_length=200, help_text="Such as token 3: keys of others differ")
    key = models.CharField(max_length=255)
    fingerprint = models.CharField(max_length=64, help_text="SHA-256 of the body, hex")
    job_id = models.BigIntegerField()
    joined = models.BooleanField(db_default=False, help_text="The job was there before")
    created_at = models.DateTimeField(help_text="The job's")

    class Meta:
        db_table = "idempotency_keys"
        indexes = [models.Index(name="idempotency_keys_age", fields=["created_at"])]


class UniqueKey(models.Model):
    """The job that holds a unique key, or was the last to: it is free once that job has ended and
    `until`, if any, has passed. jobs/uniqueness.py asks; prune forgets."""

    pk = models.CompositePrimaryKey("scope", "key")
    scope = models.CharField(max_length=40, help_text="A queue's name; empty: all queues")
    key = models.CharField(max_length=200)
    job_id = models.BigIntegerField()
    until = models.DateTimeField(null=True, help_text="The end of its job's window")

    class Meta:
        db_table = "unique_keys"
        indexes = [models.Index(name="unique_keys_of_job", fields=["job_id"])]
