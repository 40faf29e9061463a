from datetime import datetime

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now


class Overlap(models.TextChoices):
    """What a time does that comes while the job of the last one has not ended."""

    ALLOW = "allow"
    SKIP = "skip"
    QUEUE = "queue"


class CatchUp(models.TextChoices):
    """What becomes of times that passed while nobody could make them."""

    NONE = "none"
    ONE = "one"
    ALL = "all"


class Outcome(models.TextChoices):
    FIRED = "fired"
    SKIPPED = "skipped_overlap"
    WAITING = "waiting", "waits for the last job's end"
    REFUSED = "refused"


class Schedule(models.Model):
    """Submits a job at each time of a cron expression; scheduling/firing.py does it.

    `next_run_at` is all that the scheduler looks at: NULL while it is paused and once it is over.
    Whoever moves it holds the row's lock.
    """

    name = models.CharField(max_length=100, unique=True)
    cron = models.CharField(max_length=200)
    time_zone = models.CharField(max_length=64, default="UTC")
    template = models.JSONField(help_text="A job as for POST jobs, with {parameters}")
    overlap = models.CharField(max_length=5, choices=Overlap, default=Overlap.ALLOW)
    catch_up = models.CharField(max_length=4, choices=CatchUp, default=CatchUp.ONE)
    catch_up_limit = models.PositiveSmallIntegerField(default=100)
    starts_at = models.DateTimeField(null=True, blank=True)
    ends_at = models.DateTimeField(null=True, blank=True)
    jitter_seconds = models.PositiveIntegerField(default=0)
    created_by = models.CharField(max_length=150, blank=True, default="")
    paused_at = models.DateTimeField(null=True)
    paused_reason = models.TextField(blank=True, default="")
    next_run_at = models.DateTimeField(null=True)
    last_run_at = models.DateTimeField(null=True)
    last_job_id = models.BigIntegerField(null=True)
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())

    read_at: datetime  # the database's time as it was read, where it was asked for

    class Meta:
        db_table = "schedules"
        indexes = [models.Index(name="schedules_due", fields=["next_run_at"])]
        constraints = [
            models.CheckConstraint(
                name="schedules_paused_idle",
                condition=Q(paused_at=None) | Q(next_run_at=None),
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def state(self) -> str:
        """active, paused, or over: no time comes any more."""
        if self.paused_at:
            return "paused"
        return "active" if self.next_run_at else "over"


class Firing(models.Model):
    """What became of one time of a schedule: there is one row for it, whoever makes it."""

    schedule = models.ForeignKey(Schedule, models.CASCADE, related_name="firings", db_index=False)
    scheduled_at = models.DateTimeField(help_text="The cron's time, or when a person fired it")
    outcome = models.CharField(max_length=15, choices=Outcome)
    job_id = models.BigIntegerField(null=True, help_text="It may have been pruned since")
    fired_at = models.DateTimeField(null=True, help_text="NULL while it waits")

    class Meta:
        db_table = "firings"
        constraints = [
            models.UniqueConstraint(name="firings_once", fields=["schedule", "scheduled_at"]),
            models.CheckConstraint(
                name="firings_fired_iff_job",
                condition=Q(outcome="fired", job_id__isnull=False)
                | (~Q(outcome="fired") & Q(job_id=None)),
            ),
        ]
        indexes = [
            models.Index(name="firings_of_schedule", fields=["schedule", "id"]),
            models.Index(
                name="firings_waiting",
                fields=["schedule", "scheduled_at"],
                condition=Q(outcome="waiting"),
            ),
            models.Index(name="firings_age", fields=["fired_at"]),
        ]

    def __str__(self) -> str:
        return f"{self.schedule_id} at {self.scheduled_at:%Y-%m-%d %H:%M}"
