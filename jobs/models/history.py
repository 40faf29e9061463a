from django.db import models

from jobs.states import Outcome


class Attempt(models.Model):
    """One try at a task, written once, when it ended."""

    task = models.ForeignKey(
        "jobs.Task",
        models.CASCADE,
        related_name="attempts",
        db_constraint=False,
        db_index=False,
    )
    generation = models.SmallIntegerField()
    number = models.IntegerField()
    fencing_token = models.BigIntegerField()
    worker = models.ForeignKey(
        "workers.Worker", models.DO_NOTHING, null=True, db_constraint=False, db_index=False
    )
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField()
    outcome = models.CharField(max_length=9, choices=Outcome)
    exit_code = models.IntegerField(null=True)
    signal = models.SmallIntegerField(null=True)
    cpu_seconds = models.FloatField(null=True)
    peak_memory_bytes = models.BigIntegerField(null=True)
    error = models.TextField(blank=True)
    output = models.TextField(blank=True, help_text="The end of what it printed")

    class Meta:
        db_table = "attempts"
        constraints = [
            # The last word against recording an attempt twice.
            models.UniqueConstraint(name="attempts_once", fields=["task", "fencing_token"]),
        ]

    def __str__(self) -> str:
        return f"attempt {self.number} of task {self.task_id}"


class LogChunk(models.Model):
    """A stretch of what an attempt printed, at its byte offset in its stream.

    Partitioned by the day the attempt was claimed (not by `at`), so that a chunk sent twice
    meets the same key, and an attempt's log goes in one piece. Partitions: jobs/logs.py.
    """

    pk = models.CompositePrimaryKey("task_id", "fencing_token", "stream", "start", "claimed_at")
    task = models.ForeignKey(
        "jobs.Task", models.DO_NOTHING, related_name="+", db_constraint=False, db_index=False
    )
    fencing_token = models.BigIntegerField()
    stream = models.CharField(max_length=6, choices=[("stdout", "stdout"), ("stderr", "stderr")])
    start = models.BigIntegerField(help_text="Byte offset of the first byte")
    data = models.BinaryField()
    claimed_at = models.DateTimeField()
    at = models.DateTimeField()

    class Meta:
        db_table = "log_chunks"
        managed = False
