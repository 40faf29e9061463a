from datetime import timedelta

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now

from dtsproject.conf import conf
from jobs.labels import offered


class State(models.TextChoices):
    ONLINE = "online"
    DRAINING = "draining"
    CORDONED = "cordoned"
    LOST = "lost"
    GONE = "gone"


# States in which a worker may still hold leases and renew them.
PRESENT = (State.ONLINE, State.DRAINING, State.CORDONED)


class WorkerQuerySet(models.QuerySet):
    def live(self) -> "WorkerQuerySet":
        """Present, and heard of within a lease."""
        lease = timedelta(seconds=conf().lease_seconds)
        return self.filter(state__in=PRESENT, last_heartbeat__gt=Now() - lease)


class Worker(models.Model):
    """A worker process, known by its name; each start of it is a new boot.

    `last_heartbeat` stands in no index: it changes with every heartbeat.
    """

    name = models.CharField(max_length=100, unique=True)
    last_heartbeat = models.DateTimeField(db_default=Now())
    capabilities = ArrayField(models.CharField(max_length=64), default=list, blank=True)
    queues = ArrayField(models.CharField(max_length=40), default=list, blank=True)
    slots = models.PositiveSmallIntegerField(default=1)
    state = models.CharField(max_length=8, choices=State, default=State.ONLINE)
    boot_id = models.UUIDField()
    machine_id = models.CharField(max_length=64)
    version = models.CharField(max_length=40, blank=True)
    host = models.CharField(max_length=255, blank=True)
    pid = models.IntegerField(null=True)
    started_at = models.DateTimeField(db_default=Now())

    objects = WorkerQuerySet.as_manager()

    class Meta:
        db_table = "workers"

    def __str__(self) -> str:
        return self.name

    @property
    def offers(self) -> list[str]:
        """Its capabilities as it was started with them: without the sizes that follow."""
        return offered(self.capabilities)
