"""What is going on, in numbers: from narrow tables and capped counts, never by a scan."""

import threading
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count as Counted
from django.db.models import DurationField, ExpressionWrapper, Min, Q
from django.db.models.functions import Now

from dtsproject.bounded import Count, newest
from jobs.counts import totals, with_progress
from jobs.describe import available_at
from jobs.models import Attempt, Job, Ready, Task, Waiting
from jobs.states import Outcome, Status
from scheduling.lanes import Queueing, overdue, queueing
from workers.models import State, Worker
from workers.presence import with_condition

RECENT_ATTEMPTS = 5_000
RECENT_FAILURES = 1_000
RATE_SPAN = timedelta(minutes=5)
FAILURE_SPAN = timedelta(hours=1)
CACHED_SECONDS = 1.0
SHOWN_WORKERS = 60
SHOWN_FAILURES = SHOWN_JOBS = 8


@dataclass(frozen=True, kw_only=True)
class Figures:
    pending: Count
    queued: Count
    running: Count
    done_per_minute: float
    failed_in_an_hour: Count
    oldest_waiting_at: datetime | None
    lanes: list[Queueing]
    overdue: bool
    workers: list[Any]
    failures: list[Any]
    jobs: list[Any]
    taken_at: float

    @property
    def unserved(self) -> list[Queueing]:
        return [entry for entry in self.lanes if not entry.slots and not entry.paused]

    @property
    def stuck(self) -> bool:
        """Whether no scheduler does its work, though workers could take more."""
        return self.overdue or any(entry.stuck for entry in self.lanes)

    @property
    def live_workers(self) -> list[Any]:
        """Those that take tasks."""
        return [worker for worker in self.workers if worker.live and worker.state == State.ONLINE]


_lock = threading.Lock()
_last: Figures | None = None


def figures() -> Figures:
    """The numbers, at most CACHED_SECONDS old: more viewers cost no more queries."""
    global _last
    with _lock:
        if _last is None or time.monotonic() - _last.taken_at > CACHED_SECONDS:
            _last = take()
        return _last


def take() -> Figures:
    """The numbers as they are now."""
    found = totals()
    failed, failures = recent_failures()
    return Figures(
        pending=found[Status.PENDING],
        queued=found[Status.QUEUED],
        running=found[Status.IN_PROGRESS],
        done_per_minute=done_per_minute(),
        failed_in_an_hour=failed,
        oldest_waiting_at=oldest_waiting_at(),
        lanes=queueing(),
        overdue=overdue(),
        workers=list(
            with_condition(Worker.objects.exclude(state=State.GONE)).order_by("name")[
                :SHOWN_WORKERS
            ]
        ),
        failures=failures,
        jobs=recent_jobs(),
        taken_at=time.monotonic(),
    )


def done_per_minute() -> float:
    """Over RATE_SPAN, or over what the newest attempts cover where they do not reach so far."""
    done = Attempt.objects.filter(outcome=Outcome.DONE, ended_at__gt=Now() - RATE_SPAN)
    covered = ExpressionWrapper(Now() - Min("ended_at"), output_field=DurationField())
    found = newest(done, RECENT_ATTEMPTS).aggregate(n=Counted("pk"), covered=covered)
    span = RATE_SPAN
    if found["n"] > RECENT_ATTEMPTS / 2:
        span = min(found["covered"], RATE_SPAN)
    return found["n"] * 60 / max(span.total_seconds(), 1)


def recent_failures() -> tuple[Count, list[Any]]:
    """How many tasks failed within FAILURE_SPAN, and the last few that did, with their `error`.

    Looks at the RECENT_FAILURES newest failed tasks: by id, which an index holds.
    """
    newest_failed = (
        Task.objects.in_status(Status.FAILED)
        .order_by("-pk")
        .annotate(lately=Q(completed_at__gt=Now() - FAILURE_SPAN))
        .values_list("completed_at", "pk", "lately")[:RECENT_FAILURES]
    )
    found = list(newest_failed)
    lately = sum(1 for _, _, late in found if late)
    count = Count(lately, RECENT_FAILURES - 1)
    last = [pk for _, pk, _ in sorted(found, reverse=True)[:SHOWN_FAILURES]]
    tasks = Task.objects.filter(pk__in=last).select_related("job", "assigned_worker")
    errors = Attempt.objects.filter(task_id__in=last).order_by("fencing_token")
    error_of = dict(errors.values_list("task_id", "error"))
    failures: list[Any] = sorted(tasks, key=lambda task: last.index(task.pk))
    for task in failures:
        task.error = error_of.get(task.pk, "")
    return count, failures


def oldest_waiting_at() -> datetime | None:
    """Since when the oldest task that could run has waited. Ids are given in order of time."""
    heads = [table.objects.order_by("pk").values("pk")[:1] for table in (Waiting, Ready)]
    oldest = Task.objects.filter(Q(pk__in=heads[0]) | Q(pk__in=heads[1])).order_by("pk").first()
    return available_at(oldest) if oldest else None


def recent_jobs() -> list[Any]:
    """The newest jobs with their `progress`."""
    jobs: list[Any] = list(Job.objects.order_by("-pk")[:SHOWN_JOBS])
    with_progress(jobs)
    for job in jobs:
        job.state = job.progress.state(job)
    return jobs
