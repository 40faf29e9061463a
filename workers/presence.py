"""How workers are, for people."""

from typing import Any

from django.db.models import (
    DurationField,
    Exists,
    ExpressionWrapper,
    F,
    OuterRef,
    QuerySet,
    Subquery,
    Sum,
)
from django.db.models.functions import Coalesce, Now

from jobs.models import Lease
from workers.models import PRESENT, State, Worker

MOST_CELLS = 64


def with_condition(workers: QuerySet[Worker]) -> QuerySet[Worker]:
    """Adds `live`, `busy` (slots) and `silence` (since the last heartbeat), by the database."""
    leases = Lease.objects.filter(worker=OuterRef("pk")).order_by().values("worker")
    silence = ExpressionWrapper(Now() - F("last_heartbeat"), output_field=DurationField())
    return workers.annotate(
        live=Exists(Worker.objects.live().filter(pk=OuterRef("pk"))),
        busy=Coalesce(Subquery(leases.annotate(n=Sum("lane__slots")).values("n")), 0),
        silence=silence,
    )


def condition(worker: Any) -> str:
    """Its state, or `silent` when it should be heard of and is not: soon declared lost."""
    return worker.state if worker.live or worker.state not in PRESENT else "silent"


def cells(worker: Any) -> list[str]:
    """What each of its slots is doing, up to MOST_CELLS: busy ones first."""
    busy = min(worker.busy, worker.slots)
    state = condition(worker)
    if state in ("silent", State.LOST):
        states = ["lost"] * worker.slots
    else:
        rest = "idle" if state == State.ONLINE else "draining"
        states = ["in_progress"] * busy + [rest] * (worker.slots - busy)
    return states[:MOST_CELLS]
