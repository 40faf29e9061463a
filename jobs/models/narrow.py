"""The narrow tables: each task that has not ended is in exactly one of them.

Their rows carry what their readers need, so that the hot path never joins the wide `tasks`.
Whoever holds the lock on a task's narrow row may write its wide row; no other way is safe.
References have neither constraint nor index beyond those named: Django's defaults cost a fifth
of the throughput, and the rows are moved, never edited by hand.
"""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now


class Lane(models.Model):
    """A queue with a distinct set of required labels (jobs/labels.py), whose tasks take so many
    slots each; a worker claims from lanes it serves."""

    queue = models.CharField(max_length=40)
    requires = ArrayField(models.CharField(max_length=64), default=list)
    slots = models.SmallIntegerField(db_default=1, default=1)

    class Meta:
        db_table = "lanes"
        constraints = [
            models.UniqueConstraint(name="lanes_key", fields=["queue", "requires", "slots"])
        ]

    def __str__(self) -> str:
        slots = [f"{self.slots} slots"] if self.slots > 1 else []
        return " ".join([self.queue, *self.requires, *slots])


def task_key() -> models.OneToOneField:
    return models.OneToOneField(
        "jobs.Task", models.CASCADE, primary_key=True, db_constraint=False, related_name="+"
    )


def lane_reference() -> models.ForeignKey:
    return models.ForeignKey(
        "jobs.Lane", models.PROTECT, db_constraint=False, db_index=False, related_name="+"
    )


class Waiting(models.Model):
    """May be promoted; in policy order within its lane."""

    task = task_key()
    lane = lane_reference()
    score = models.BigIntegerField()
    job_id = models.BigIntegerField()

    class Meta:
        db_table = "waiting"
        indexes = [
            models.Index(name="waiting_order", fields=["lane", "score", "job_id", "task"]),
        ]


class Ready(models.Model):
    """May be claimed; `seq`, the dispatch sequence, is the order of promotion."""

    task = task_key()
    lane = lane_reference()
    seq = models.BigIntegerField()
    score = models.BigIntegerField()
    job_id = models.BigIntegerField()

    class Meta:
        db_table = "ready"
        constraints = [models.UniqueConstraint(name="ready_order", fields=["lane", "seq"])]


class Deferred(models.Model):
    """Not due yet: `run_after` lies ahead, or a retry backs off."""

    task = task_key()
    lane = lane_reference()
    due_at = models.DateTimeField()
    score = models.BigIntegerField()
    job_id = models.BigIntegerField()

    class Meta:
        db_table = "deferred"
        indexes = [models.Index(name="deferred_due", fields=["due_at"])]


class Blocked(models.Model):
    """Waits for something other than its time, its turn or a worker: `reason` says for what, and
    `key` of which (for `paused` the job's id, for `limit` the concurrency key). `unmet` counts the
    `dependencies` in its way."""

    class Reason(models.TextChoices):
        PAUSED = "paused", "its job is paused"
        DEPENDENCIES = "dependencies", "tasks it depends on have not ended"
        LIMIT = "limit", "its concurrency key has a limit"

    task = task_key()
    lane = lane_reference()
    reason = models.CharField(max_length=12, choices=Reason)
    key = models.CharField(max_length=100, blank=True, default="")
    unmet = models.IntegerField(db_default=0)
    score = models.BigIntegerField()
    job_id = models.BigIntegerField()

    class Meta:
        db_table = "blocked"
        indexes = [
            models.Index(name="blocked_by", fields=["reason", "key", "task"]),
            models.Index(
                name="blocked_in_line",
                fields=["key", "lane", "score", "job_id", "task"],
                condition=models.Q(reason="limit"),
            ),
        ]


class Lease(models.Model):
    """Is running: held by one worker under one fencing token.

    It lapses `lease_seconds` after the later of `claimed_at` and the worker's last heartbeat
    that named it. `deadline_at` is the attempt's own end (timeout and grace), if it has one.
    """

    task = task_key()
    worker = models.ForeignKey(
        "workers.Worker", models.DO_NOTHING, db_constraint=False, db_index=False, related_name="+"
    )
    fencing_token = models.BigIntegerField()
    claimed_at = models.DateTimeField(db_default=Now())
    deadline_at = models.DateTimeField(null=True)
    cancel_requested_at = models.DateTimeField(null=True)
    retry_count = models.SmallIntegerField()
    max_retries = models.SmallIntegerField()
    loss_count = models.SmallIntegerField()
    lane = lane_reference()
    seq = models.BigIntegerField()
    score = models.BigIntegerField()
    job_id = models.BigIntegerField()

    class Meta:
        db_table = "leases"
        indexes = [models.Index(name="leases_of_worker", fields=["worker"])]
