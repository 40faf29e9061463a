"""Why a task has not started yet, in a sentence."""

from django.utils.text import capfirst

from dtsproject.bounded import CAP, Count
from dtsproject.show import stamp
from jobs import statements
from jobs.describe import failure
from jobs.limits import standing
from jobs.models import Attempt, Blocked, Deferred, Dependency, Lane, Task
from jobs.placement import lacking, offers
from jobs.states import Status
from scheduling.lanes import overdue, queueing

NAMED_TASKS = 5
NO_SCHEDULER = "It is due, but nothing is promoted. Is manage.py run_scheduler running?"


def why(task: Task) -> str:
    """The reason, or nothing when the task does not wait."""
    if task.status not in (Status.PENDING, Status.QUEUED):
        return ""
    held = "Its job is paused" if task.job.paused_at else ""
    if task.dependency_count and (waits := _waits_for(task)):
        return f"{held}, and it {waits}." if held else f"It {waits}."
    if held:
        return f"{held}."
    due_at = Deferred.objects.filter(pk=task.pk).values_list("due_at", flat=True).first()
    if due_at is not None:
        if overdue():
            return NO_SCHEDULER
        return f"{_put_off(task)} {stamp(due_at)}."
    if task.concurrency_key and (limited := _limit_reason(task)):
        return limited
    parameters = {"task_id": task.pk, "lane_id": task.lane_id, "limit": CAP + 1}
    ((waiting, ready, paused),) = statements.rows("ahead", parameters)
    if paused:
        return f"Its queue, {task.queue}, is paused."
    if task.status == Status.QUEUED:
        return f"{_before(Count(ready))}; the next slot that is free takes it."
    return _lane_reason(task) or f"{_before(Count(waiting + ready))} in its lane, {task.lane}."


def _put_off(task: Task) -> str:
    """Why it is not due, up to the time at which it will be."""
    if not task.retry_count:
        return "It is not due before"
    last = Attempt.objects.filter(task=task, fencing_token=task.fencing_token).first()
    return f"{capfirst(failure(last))}; it is tried again at" if last else "It is tried again at"


def _waits_for(task: Task) -> str:
    """The tasks that are in its way, a few of them by name; nothing when none is."""
    unmet = Blocked.objects.filter(pk=task.pk).values_list("unmet", flat=True).first()
    if not unmet:
        return ""
    edges = Dependency.objects.filter(task=task, met=False).order_by("depends_on_id")
    parents = Task.objects.filter(pk__in=edges.values("depends_on_id")[:NAMED_TASKS])
    names = [
        parent.key if parent.job_id == task.job_id else f"#{parent.pk}"
        for parent in parents.order_by("pk")
    ]
    noun = "1 task" if unmet == 1 else f"{unmet:,} tasks"
    more = " and others" if unmet > len(names) else ""
    return f"waits for {noun}: {', '.join(names)}{more}"


def _limit_reason(task: Task) -> str:
    """What of its key's limit is in its way; nothing when it has room and waits for its turn."""
    if not Blocked.objects.filter(pk=task.pk, reason=Blocked.Reason.LIMIT).exists():
        return ""
    limit = standing(task.concurrency_key)
    if limit is None:
        return ""
    if limit.max_running is not None and limit.running >= limit.max_running:
        used = f"{limit.running} of {limit.max_running} queued or running"
        return f"Limit {limit.key} reached ({used})."
    if limit.rate_reached:
        return f"Rate of {limit.key} reached, next at {stamp(limit.next_at)}."
    return _lane_reason(task) or f"It waits its turn among tasks of the key {task.concurrency_key}."


def _lane_reason(task: Task) -> str:
    found = next((entry for entry in queueing() if entry.lane.pk == task.lane_id), None)
    if found is None:
        return ""
    if not found.slots:
        live = offers()
        lacks = lacking(task.queue, task.requires, task.slots, live)
        return lacks if live else f"{lacks} Start one: {remedy(found.lane)}"
    if found.full:
        return f"Queue {task.queue} is at its limit."
    if found.stuck:
        return NO_SCHEDULER
    return ""


def needs(lane: Lane) -> str:
    """The lane in words: `queue gpu needing cuda, mem_mb>=2048, 4 slots`."""
    needed = [*lane.requires, *([f"{lane.slots} slots"] if lane.slots > 1 else [])]
    return f"queue {lane.queue}{' needing ' if needed else ''}{', '.join(needed)}"


def remedy(lane: Lane) -> str:
    """The command that starts a worker which serves the lane."""
    offered = ",".join(label.replace(">=", "=") for label in lane.requires)
    capabilities = f" --capabilities {offered}" if offered else ""
    queues = "" if lane.queue == "default" else f" --queues {lane.queue}"
    slots = f" --slots {lane.slots}" if lane.slots > 1 else ""
    return f"manage.py run_worker{capabilities}{queues}{slots}"


def _before(count: Count) -> str:
    if not count:
        return "It comes next"
    return f"{count} task comes before it" if count.value == 1 else f"{count} tasks come before it"
