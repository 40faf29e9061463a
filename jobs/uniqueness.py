"""Unique keys: of the jobs that name the same one, a single one at a time holds it.

Whoever asks for a key holds its row's lock until its transaction ends, before any other lock: so a
submit waits for another of the same key, and sees in its next statement what that one stored. The
row names the last job that got the key; whether that still holds it is looked at when it matters.
"""

from collections.abc import Iterable
from typing import NamedTuple

from django.db import connection

from dtsproject.errors import Refusal
from jobs.models import Job, Task
from jobs.specs import Unique
from jobs.states import Scope, Status

# clock_timestamp: the time after the wait for the row, not before.
LOCK = """
INSERT INTO unique_keys (scope, key, job_id) VALUES (%s, %s, 0)
ON CONFLICT (scope, key) DO UPDATE SET key = excluded.key
RETURNING job_id, coalesce(until > clock_timestamp(), false)
"""
KEEP = """
UPDATE unique_keys SET job_id = %s, until = %s + make_interval(secs => %s)
WHERE scope = %s AND key = %s
"""


class Duplicate(Refusal):
    code, title = "duplicate", "Another job holds the unique key"


class Holder(NamedTuple):
    """The job that a key's row names, 0 if there is none yet."""

    job_id: int
    holds: bool


def scope_of(unique: Unique, queue: str) -> str:
    """As `unique_keys` has it."""
    return queue if unique.scope == Scope.QUEUE else ""


def lock(unique: Unique, queue: str) -> Holder:
    """The key's holder, which does not change before the transaction ends."""
    with connection.cursor() as cursor:
        cursor.execute(LOCK, [scope_of(unique, queue), unique.key])
        job_id, in_window = cursor.fetchone()
    live = Task.objects.live().filter(job_id=job_id)
    return Holder(job_id, live.exists() or (in_window and Job.objects.filter(pk=job_id).exists()))


def keep(unique: Unique, job: Job) -> None:
    """Makes the job the holder of the key, which is locked."""
    scope = scope_of(unique, job.queue)
    with connection.cursor() as cursor:
        cursor.execute(KEEP, [job.pk, job.created_at, unique.window_seconds, scope, unique.key])


def joined(job_id: int) -> Job:
    """The job that a submit joins."""
    job = Job.objects.get(pk=job_id)
    job.joined = True
    return job


def refusal(unique: Unique, job_id: int) -> Duplicate:
    return Duplicate(
        f"Job {job_id} holds the unique key {unique.key}: wait until it lets go, or give "
        "on_duplicate as join or replace.",
        job_id=job_id,
    )


def regain(task_ids: Iterable[int]) -> list[Duplicate]:
    """Before a retry: locks the unique keys of the jobs whose tasks these are, and gives each back
    to its job unless another holds it. Returns why which did not get theirs."""
    ended = (Status.FAILED, Status.CANCELLED)
    tasks = Task.objects.filter(pk__in=list(task_ids), final_status__in=ended)
    jobs = Job.objects.filter(pk__in=tasks.values("job_id"), unique__isnull=False)
    wanted = [(scope_of(unique, job.queue), unique, job) for job in jobs if (unique := of(job))]
    refused = []
    for _, unique, job in sorted(wanted, key=lambda it: (it[0], it[1].key, it[2].pk)):
        holder = lock(unique, job.queue)
        if holder.job_id == job.pk:
            continue
        if holder.holds:
            refused.append(refusal(unique, holder.job_id))
        else:
            keep(unique, job)
    return refused


def of(job: Job) -> Unique | None:
    return Unique(**job.unique) if job.unique else None
