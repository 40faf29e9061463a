from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

MOST_RATE_SECONDS = 24 * 3600


class Limit(models.Model):
    """How many tasks of one concurrency key may be queued or running at once, and how many may be
    queued within a time.

    A key that ends in `*` gives each key that begins so a limit of its own of this size; the key
    itself, then the longest such beginning, goes first (the database's function `limit_of`).
    """

    key = models.CharField(max_length=101, unique=True)
    max_running = models.IntegerField(null=True, blank=True)
    rate_count = models.IntegerField(null=True, blank=True)
    rate_seconds = models.FloatField(null=True, blank=True)
    changed_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "limits"
        constraints = [
            models.CheckConstraint(
                name="limits_limit_something",
                condition=Q(max_running__isnull=False, max_running__gt=0)
                | Q(max_running=None, rate_count__isnull=False),
            ),
            models.CheckConstraint(
                name="limits_rate_whole",
                condition=Q(rate_count=None, rate_seconds=None)
                | Q(
                    rate_count__isnull=False,
                    rate_count__gt=0,
                    rate_seconds__isnull=False,
                    rate_seconds__gt=0,
                ),
            ),
        ]
        indexes = [
            models.Index(name="limits_of_prefixes", fields=["key"], condition=Q(key__endswith="*")),
        ]

    def __str__(self) -> str:
        return self.key


class Permit(models.Model):
    """Notes of which limited key a queued or running task is.

    Written as a task is promoted, or as its key gets a limit; swept some time after. It counts
    only while its task is in `ready` or `leases`, so nothing else needs to know of it. While
    `attempt` is still the task's, it has not been claimed since: to promote it again uses nothing
    of the key's rate.
    """

    task_id = models.BigIntegerField(primary_key=True)
    key = models.CharField(max_length=100)
    attempt = models.IntegerField()
    promoted_at = models.DateTimeField()

    class Meta:
        db_table = "permits"


class Bucket(models.Model):
    """What a key's rate had left at a moment; without a row, all. Written by promotion alone."""

    key = models.CharField(max_length=100, primary_key=True)
    tokens = models.FloatField()
    filled_at = models.DateTimeField()

    class Meta:
        db_table = "buckets"
