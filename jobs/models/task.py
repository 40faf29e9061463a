from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Case, F, Q, When
from django.db.models.functions import Now

from jobs.querysets import TaskQuerySet
from jobs.states import TERMINAL, Kind, Status


class Task(models.Model):
    """One command or function to run: the exact truth for people.

    The machine works on the narrow tables (narrow.py) and moves this row in the same statement.
    Nothing outside jobs/queue.py writes it.

    No index here names a column that changes while a task lives: one such index costs every
    update its HOT (heap-only tuple), and the table bloats. `final_status` changes once, at the
    end, and so serves the lists: of finished work, and, while it is NULL, of live work. What stays
    NULL in tasks that do not use it costs them nothing: deadlines, and workers to avoid.
    """

    job = models.ForeignKey(
        "jobs.Job", models.CASCADE, related_name="tasks", db_constraint=False, db_index=False
    )
    name = models.CharField(max_length=200, blank=True, default="")
    queue = models.CharField(max_length=40, default="default")
    kind = models.CharField(max_length=8, choices=Kind, default=Kind.SHELL)
    payload = models.JSONField()
    priority = models.SmallIntegerField(default=0)
    requires = ArrayField(models.CharField(max_length=64), default=list, blank=True)
    slots = models.SmallIntegerField(db_default=1, help_text="How many of its worker's it takes")
    run_after = models.DateTimeField(null=True, blank=True)
    timeout_seconds = models.FloatField(null=True, blank=True)
    max_retries = models.SmallIntegerField(default=0)
    retry = models.JSONField(null=True, help_text="When, where and whether it is tried again")
    deadline_seconds = models.FloatField(
        null=True, help_text="For all attempts and waits, from when it was submitted or due"
    )
    key = models.CharField(
        max_length=100, blank=True, db_default="", help_text="What its job's tasks call it"
    )
    dependency_count = models.IntegerField(
        db_default=0, help_text="Of how many tasks it awaits the end"
    )
    has_dependents = models.BooleanField(db_default=False)
    concurrency_key = models.CharField(
        max_length=100, blank=True, db_default="", help_text="What its limit counts it by"
    )

    lane = models.ForeignKey("jobs.Lane", models.PROTECT, db_constraint=False, db_index=False)
    score = models.BigIntegerField()
    status = models.CharField(max_length=12, choices=Status, default=Status.PENDING)
    generation = models.SmallIntegerField(default=1)
    attempt = models.IntegerField(default=0)
    fencing_token = models.BigIntegerField(default=0)
    retry_count = models.SmallIntegerField(default=0)
    loss_count = models.SmallIntegerField(default=0)
    assigned_worker = models.ForeignKey(
        "workers.Worker", models.DO_NOTHING, null=True, db_constraint=False, db_index=False
    )
    avoided_worker = models.ForeignKey(
        "workers.Worker",
        models.DO_NOTHING,
        null=True,
        db_constraint=False,
        db_index=False,
        related_name="+",
        help_text="It failed there last, and asked to be tried elsewhere",
    )
    cancel_requested_at = models.DateTimeField(null=True)
    deadline_at = models.DateTimeField(null=True)
    exit_code = models.IntegerField(null=True)
    result_text = models.TextField(blank=True, default="")
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True)
    completed_at = models.DateTimeField(null=True)
    final_status = models.GeneratedField(
        expression=Case(When(status__in=TERMINAL, then=F("status")), default=None),
        output_field=models.CharField(max_length=12, null=True, choices=Status),
        db_persist=True,
    )

    objects = TaskQuerySet.as_manager()

    class Meta:
        db_table = "tasks"
        indexes = [
            # Two partial indexes, not one with NULLs: `IS NULL ORDER BY id` is not read in order.
            models.Index(name="tasks_live", fields=["id"], condition=Q(final_status=None)),
            models.Index(
                name="tasks_final",
                fields=["final_status", "id"],
                condition=Q(final_status__isnull=False),
            ),
            models.Index(name="tasks_of_job", fields=["job", "final_status", "id"]),
            # Not where final_status is NULL, which is the same: a plan made while there was no live
            # task would take tasks_live for as short as these, and read all of it for each claim.
            models.Index(
                name="tasks_deadline",
                fields=["deadline_at"],
                condition=Q(completed_at=None, deadline_at__isnull=False),
            ),
            models.Index(
                name="tasks_avoided",
                fields=["avoided_worker"],
                condition=Q(completed_at=None, avoided_worker__isnull=False),
            ),
        ]
        constraints = [
            models.CheckConstraint(
                name="tasks_status_known", condition=Q(status__in=Status.values)
            ),
            models.CheckConstraint(
                name="tasks_completed_at_iff_ended",
                condition=Q(status__in=TERMINAL, completed_at__isnull=False)
                | (~Q(status__in=TERMINAL) & Q(completed_at__isnull=True)),
            ),
            models.CheckConstraint(
                name="tasks_in_progress_has_worker",
                condition=~Q(status=Status.IN_PROGRESS) | Q(assigned_worker__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name or self.kind} #{self.pk}"
