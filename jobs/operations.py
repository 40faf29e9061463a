"""Verbs for all that a filter leaves: asked for at once, carried out batch by batch.

Recovery carries them out. A batch, and how far its operation is, are one transaction under the lock
of the operation's row: so a recovery killed at any line leaves a batch done and noted, or neither,
and whichever comes next goes on from there.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import Max, QuerySet
from django.db.models.functions import Coalesce, Now
from django.http import QueryDict

from dtsproject.bounded import Count
from dtsproject.conf import conf
from dtsproject.errors import Refusal
from jobs import queue
from jobs.models import Job, Operation, Task
from jobs.models.operation import Action, Target
from jobs.states import Status

BATCH = 1_000
# Of task ids among which a statement looks for as many: it must be done within its time limit.
RANGE = 50_000
COUNTED = 100_000
# A verb of a larger job becomes an operation.
LARGE_JOB = 10_000
PRUNE_BATCH = 1_000


class BadFilter(Refusal):
    """`faults` is {name: [what is wrong]}."""

    status, code, title = 400, "invalid", "The filter is not valid"

    def __init__(self, faults: Mapping[str, Any]) -> None:
        super().__init__("; ".join(f"{name}: {' '.join(it)}" for name, it in faults.items()))
        self.faults = faults


class Ended(queue.WrongState):
    title = "It has ended"


def matching(operation: Operation) -> QuerySet[Task]:
    """The tasks that it is for, as they are now. Raises BadFilter."""
    from jobs.api.filters import JobFilter, TaskFilter  # too much for a loop without operations

    given = operation.filter
    if operation.target == Target.TASKS:
        tasks = _filtered(TaskFilter, given, Task.objects.all())
    else:
        jobs = _filtered(JobFilter, given, Job.objects.all())
        tasks = Task.objects.filter(job__in=jobs.values("pk"))
    if operation.action == Action.RETRY:
        return tasks.filter(final_status__in=(Status.FAILED, Status.CANCELLED))
    live = tasks.filter(final_status__isnull=True)
    if operation.action == Action.PRIORITISE:
        return live.exclude(status=Status.IN_PROGRESS)
    return live


def _filtered(filters: Any, given: Mapping[str, Any], rows: QuerySet) -> QuerySet:
    known, query = filters.base_filters, QueryDict(mutable=True)
    for name, value in given.items():
        values = value if isinstance(value, list) else [value]
        if name not in known:
            raise BadFilter({name: [f"There is no such filter; there are {', '.join(known)}."]})
        if not values or not all(isinstance(v, str | int) and v != "" for v in values):
            raise BadFilter({name: ["Give a text, a number or a list of them."]})
        query.setlist(name, [str(v) for v in values])
    found = filters(query, queryset=rows)
    if not found.is_valid():
        raise BadFilter(found.errors)
    return found.qs


def count(operation: Operation) -> Count:
    """How many tasks it would change now, counted up to COUNTED. Raises BadFilter."""
    return Count(matching(operation)[: COUNTED + 1].count(), COUNTED)


def detail(operation: Operation) -> dict[str, Any]:
    """What the audit trail says of it."""
    said = {"of": operation.target, "filter": operation.filter}
    return said if operation.priority is None else {**said, "priority": operation.priority}


def begin(operation: Operation) -> Operation:
    """Stores it, to be carried out for the tasks there are by now. Raises BadFilter."""
    operation.total = count(operation).value
    operation.until = Task.objects.aggregate(last=Max("pk"))["last"] or 0
    operation.save()
    operation.refresh_from_db()
    return operation


def of_large_job(
    job: Job, action: Action, by: str, priority: int | None = None
) -> Operation | None:
    """The operation that does this to a job of which more than LARGE_JOB tasks are concerned."""
    given = {"job": job.pk}
    operation = Operation(
        action=action, target=Target.TASKS, filter=given, priority=priority, requested_by=by
    )
    if matching(operation)[: LARGE_JOB + 1].count() <= LARGE_JOB:
        return None
    if action == Action.CANCEL:
        Job.objects.filter(pk=job.pk, finished_at=None).update(cancelled_at=Now())
    return begin(operation)


def cancel(pk: int) -> None:
    """Nothing more of it is done; what was done stays. Raises Ended."""
    open_ = Operation.objects.filter(pk=pk, ended_at=None)
    if not open_.update(cancelled_at=Now(), ended_at=Now()):
        state = Operation.objects.get(pk=pk).state
        raise Ended(
            f"Operation {pk} is {state}: only one that goes on can be cancelled.", state=state
        )


def advance() -> int:
    """Carries out a batch of the oldest operation that nobody else works on; 0 if there is none."""
    with transaction.atomic():
        open_ = Operation.objects.filter(ended_at=None).order_by("pk")
        operation = open_.select_for_update(skip_locked=True).first()
        if operation is None:
            return 0
        values: dict[str, Any] = {"started_at": Coalesce("started_at", Now())}
        try:
            ids, position = _next(operation)
            if ids:
                values["done"] = operation.done + _do(operation, ids)
            values["position"] = position
            if position >= operation.until:
                values["ended_at"] = Now()
        except BadFilter as refusal:
            values |= {"error": refusal.detail, "ended_at": Now()}
        Operation.objects.filter(pk=operation.pk).update(**values)
    return 1


def _next(operation: Operation) -> tuple[list[int], int]:
    """The tasks of the next batch, and up to where it reaches. Raises BadFilter."""
    job = operation.filter.get("job") if operation.target == Target.TASKS else None
    tasks = Task.objects.of_job(int(job)) if job else Task.objects.all()
    left = tasks.filter(pk__gt=operation.position, pk__lte=operation.until).order_by("pk")
    first = left.values_list("pk", flat=True).first()
    if first is None:
        return [], operation.until
    last = min(first + RANGE - 1, operation.until)
    found = matching(operation).filter(pk__gte=first, pk__lte=last).order_by("pk")
    ids = list(found.values_list("pk", flat=True)[:BATCH])
    return ids, ids[-1] if len(ids) == BATCH else last


def _do(operation: Operation, ids: list[int]) -> int:
    """How many tasks the batch changed."""
    if operation.action == Action.PRIORITISE:
        return len(queue.prioritise(ids, operation.priority or 0))
    if operation.action == Action.CANCEL:
        if operation.target == Target.JOBS:
            _note_cancel(ids)
        return len(queue.cancel(ids))
    try:
        return len(queue.retry(ids))
    except queue.Duplicate:
        return 0  # others hold the unique keys of all these jobs


def _note_cancel(ids: list[int]) -> None:
    """Of the jobs whose tasks these are; locked in the order in which a retry locks them."""
    jobs = Job.objects.filter(
        pk__in=Task.objects.filter(pk__in=ids).values("job_id"), finished_at=None, cancelled_at=None
    )
    locked = jobs.order_by("pk").select_for_update(no_key=True).values_list("pk", flat=True)
    Job.objects.filter(pk__in=list(locked)).update(cancelled_at=Now())


def prune() -> int:
    """Deletes up to a batch of operations that ended longer than retention_days ago."""
    age = Now() - timedelta(days=conf().retention_days)
    old = Operation.objects.filter(ended_at__lt=age).order_by("ended_at")
    return Operation.objects.filter(
        pk__in=list(old.values_list("pk", flat=True)[:PRUNE_BATCH])
    ).delete()[0]
