from django.db import models
from django.db.models import Q
from django.db.models.functions import Now


class Action(models.TextChoices):
    CANCEL = "cancel"
    RETRY = "retry"
    PRIORITISE = "prioritise"


class Target(models.TextChoices):
    TASKS = "tasks"
    JOBS = "jobs", "tasks of jobs"


class Operation(models.Model):
    """One verb for all tasks that a filter leaves, carried out batch by batch
    (jobs/operations.py): tasks up to `position` have been dealt with."""

    action = models.CharField(max_length=10, choices=Action)
    target = models.CharField(max_length=5, choices=Target)
    filter = models.JSONField(help_text="As the query parameters of the target's list")
    priority = models.SmallIntegerField(null=True)
    requested_by = models.CharField(max_length=150, blank=True, default="")
    total = models.IntegerField(help_text="Of tasks it was for, counted up to a limit")
    done = models.BigIntegerField(db_default=0, help_text="Of tasks it changed")
    position = models.BigIntegerField(db_default=0)
    until = models.BigIntegerField(help_text="The last task there was when it was asked for")
    created_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True)
    cancelled_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    error = models.TextField(blank=True, default="")

    class Meta:
        db_table = "operations"
        indexes = [
            models.Index(name="operations_open", fields=["id"], condition=Q(ended_at=None)),
            models.Index(name="operations_age", fields=["ended_at"]),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.target} #{self.pk}"

    @property
    def state(self) -> str:
        """waiting, running, done, cancelled or failed."""
        if self.ended_at is None:
            return "running" if self.started_at else "waiting"
        if self.error:
            return "failed"
        return "cancelled" if self.cancelled_at else "done"
