"""Every write to a task's state: a function a verb, a guarded statement (or few) each.

A task that has not ended is in exactly one narrow table, and each verb moves that row and the
wide row in the same statement, so they cannot disagree. Every verb locks narrow rows first, in
order of task id (those that do not wait, SKIP LOCKED, in any order), then wide rows. All times
are the database's.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now
from psycopg import Cursor

from dtsproject import wakeups
from dtsproject.conf import conf, load
from dtsproject.errors import Refusal
from jobs import statements
from jobs.marks import Marks
from jobs.models import Attempt, Job, Lane, Lease, Task
from jobs.specs import Candidate, Claimed, Ending, JobSpec, TaskSpec
from jobs.states import Outcome, Status

MAX_LANES = 200
HEAD = (-(2**63), 0, 0)  # before any key of `waiting`
SUBMIT_BATCH = 2_000


class TooManyLanes(Refusal):
    status, code, title = 422, "too_many_lanes", "Too many distinct requirements"


class WrongState(Refusal):
    code, title = "wrong_state", "Not in this state"


# -- clients ---------------------------------------------------------------------------------


def submit(spec: JobSpec, *, submitted_by: str = "") -> Job:
    """Stores a job and all its tasks, or nothing. Raises TooManyLanes."""
    job, scores, missing = _store(spec, submitted_by)
    if missing:
        _make_lanes(spec.queue, missing)
        job, scores, _ = _store(spec, submitted_by)
    wakeups.notify(wakeups.SUBMITTED, str(min(scores.values())))
    return job


def _store(spec: JobSpec, submitted_by: str) -> tuple[Job, "Scores", list[tuple[str, ...]]]:
    """The stored job and its tasks' scores; or, nothing being stored, the lanes it lacks."""
    with statements.transaction(pipelined=len(spec.tasks) > SUBMIT_BATCH) as rollback:
        job, lanes = _begin_job(spec, submitted_by)
        scores = Scores(load(conf().policy), job)
        missing = sorted({lane_key(task.requires) for task in spec.tasks} - lanes.keys())
        if missing:
            raise rollback
        # Each batch is stored while the next is made ready.
        for start in range(0, len(spec.tasks), SUBMIT_BATCH):
            batch = spec.tasks[start : start + SUBMIT_BATCH]
            statements.execute("submit", _submit_parameters(job, lanes, batch, scores))
    return job, scores, missing


def _begin_job(spec: JobSpec, submitted_by: str) -> tuple[Job, dict[tuple[str, ...], int]]:
    """The job's row, and the id of each lane that its queue has, by what it requires."""
    given = {"name": spec.name, "queue": spec.queue, "submitted_by": submitted_by}
    rows = statements.rows("begin_job", {**given, "labels": json.dumps(spec.labels)})
    (job_id, created_at, _, _), *_ = rows
    job = Job(pk=job_id, labels=spec.labels, created_at=created_at, **given)
    return job, {tuple(requires): lane for _, _, lane, requires in rows if lane is not None}


def lane_key(requires: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(set(requires))) if requires else ()


def _make_lanes(queue: str, missing: Sequence[tuple[str, ...]]) -> None:
    if Lane.objects.count() + len(missing) > MAX_LANES:
        raise TooManyLanes(
            f"There may be {MAX_LANES} combinations of queue and requirements; use one that "
            f"exists instead of {queue} {' '.join(missing[0])}"
        )
    for requires in missing:
        Lane.objects.get_or_create(queue=queue, requires=list(requires))


class Scores(dict):
    """The policy's score of each kind of task in a job, asked for once."""

    def __init__(self, policy: Any, job: Job) -> None:
        super().__init__()
        self.policy = policy
        self.job = job

    def __missing__(self, key: tuple[int, datetime | None, str, str]) -> int:
        priority, run_after, name, kind = key
        available_at = max(self.job.created_at, run_after or self.job.created_at)
        self[key] = score = self.policy.score(
            Candidate(
                priority=priority,
                available_at_us=int(available_at.timestamp() * 1_000_000),
                queue=self.job.queue,
                name=name,
                kind=kind,
            )
        )
        return score


def _submit_parameters(
    job: Job, lanes: Mapping[tuple[str, ...], int], tasks: Sequence[TaskSpec], scores: Scores
) -> dict:
    sent = columns(TaskSpec._fields, tasks)
    keys = zip(sent["priority"], sent["run_after"], sent["name"], sent["kind"], strict=True)
    return {
        "job_id": job.pk,
        "queue": job.queue,
        "created_at": job.created_at,
        "payload": list(map(json.dumps, sent["payload"])),
        "score": [scores[key] for key in keys],
        **alike("lane_id", [lanes[lane_key(requires)] for requires in sent["requires"]]),
        **alike("name", sent["name"]),
        **alike("kind", sent["kind"]),
        **alike("priority", sent["priority"]),
        **alike("run_after", sent["run_after"]),
        **alike("timeout_seconds", sent["timeout_seconds"]),
        **alike("max_retries", sent["max_retries"]),
    }


def alike(name: str, column: list) -> dict[str, Any]:
    """A column as two parameters: one value if all are that, else an array."""
    if column.count(column[0]) == len(column):
        return {name: [], f"all_{name}": column[0]}
    return {name: column, f"all_{name}": None}


def cancel(task_ids: Iterable[int]) -> dict[int, str]:
    """Cancels what waits at once and asks for the end of what runs.

    Returns the state each touched task was left in: `cancelled`, or `in_progress` until its
    worker confirms that its process tree is dead. Tasks that had ended are not touched.
    """
    left = set(task_ids)
    touched: dict[int, str] = {}
    while left:
        # A new statement each time: it sees a task that another verb moved meanwhile.
        moved = dict(statements.rows("cancel", {"ids": sorted(left)}))
        touched |= moved
        left -= moved.keys()
        left = set(Task.objects.live().filter(pk__in=left).values_list("pk", flat=True))
    if Status.IN_PROGRESS in touched.values():
        wakeups.notify(wakeups.CANCELLED)
    return touched


def cancel_job(job_id: int) -> dict[int, str]:
    """Cancels all of a job's tasks that have not ended; see `cancel`."""
    Job.objects.filter(pk=job_id, finished_at=None).update(cancelled_at=Now())
    return cancel(Task.objects.live().filter(job_id=job_id).values_list("pk", flat=True))


def retry(task_ids: Iterable[int]) -> list[int]:
    """Gives failed and cancelled tasks a new generation; returns the ids of those retried."""
    retried = [pk for (pk,) in statements.rows("retry", {"ids": sorted(task_ids)})]
    if retried:
        wakeups.notify(wakeups.SUBMITTED)
    return retried


# -- the scheduler ---------------------------------------------------------------------------


def promote(
    rooms: Mapping[int, int], *, batch: int, marks: Mapping[int, tuple[int, ...]] | None = None
) -> dict[int, tuple[int, tuple[int, ...]]]:
    """Queues the most urgent waiting tasks: up to `rooms[lane]` of each lane, `batch` in all.

    `marks` are keys (score, job id, task id) after which to look. Returns, for each lane in which
    any were promoted, how many and the key of the last.
    """
    starts = [(marks or {}).get(lane, HEAD) for lane in rooms]
    parameters = {
        "lanes": list(rooms),
        "rooms": list(rooms.values()),
        "batch": batch,
        **columns(("scores", "job_ids", "task_ids"), starts),
    }
    return {
        lane: (promoted, tuple(last))
        for lane, promoted, *last in statements.rows("promote", parameters)
    }


def recall(overtaken: Mapping[int, tuple[int, int]]) -> dict[int, int]:
    """Puts queued tasks back to pending, score kept: of each lane those less urgent than its
    score in `overtaken`, from its dispatch sequence there on. Returns how many of each lane."""
    parameters = {"lanes": list(overtaken), **columns(("scores", "seqs"), overtaken.values())}
    return dict(statements.rows("recall", parameters))


def columns(names: Sequence[str], rows: Iterable[Sequence]) -> dict[str, list]:
    """Rows turned into an array for each column."""
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    return {name: list(column) for name, column in zip(names, columns, strict=True)}


def bring_due(*, batch: int) -> int:
    """Lets deferred tasks whose time has come be promoted."""
    return statements.changed("due", {"batch": batch})


def settle(*, after: int, limit: int) -> tuple[int, int | None]:
    """Marks finished jobs among the next `limit` unfinished ones with an id above `after`.

    Returns how many were marked, and the last id looked at (None: the end was reached).
    """
    with transaction.atomic():
        unfinished = Job.objects.filter(finished_at=None, pk__gt=after).order_by("pk")
        ids = list(
            unfinished.select_for_update(skip_locked=True).values_list("pk", flat=True)[:limit]
        )
        settled = statements.rows("settle", {"ids": ids}) if ids else []
    return len(settled), ids[-1] if len(ids) == limit else None


# -- workers ---------------------------------------------------------------------------------


def claim(
    *, worker_id: int, boot_id: UUID, limit: int, marks: Marks | None = None
) -> list[Claimed]:
    """Leases up to `limit` queued tasks to this boot of the worker, in policy order.

    `marks` are the caller's, kept from claim to claim; without, each looks from the head.
    """
    marks = marks or Marks()
    return _claimed(_claim(worker_id, boot_id, limit, marks).fetchall(), marks)


def report(
    endings: Sequence[Ending], *, worker_id: int | None = None, proven: bool = True
) -> dict[int, str]:
    """Ends attempts: complete, fail, release and loss alike (jobs/sql/end.sql has the rules).

    `worker_id` limits it to that worker's leases. `proven` says whether a loss is known to be
    a death, which counts against the task, or only silence.

    Returns the state each task was moved to, or was moved to by the same report before. A task
    not in it was no longer held under the token reported: nothing of it changed.
    """
    return _reported(endings, _end(endings, worker_id, proven).fetchall(), worker_id)


def report_and_claim(
    endings: Sequence[Ending], *, worker_id: int, boot_id: UUID, limit: int, marks: Marks
) -> tuple[dict[int, str], list[Claimed]]:
    """`report` and `claim` in one round trip and one commit."""
    with statements.pipeline():
        ended = _end(endings, worker_id, proven=True)
        claimed = _claim(worker_id, boot_id, limit, marks)
    states = _reported(endings, ended.fetchall(), worker_id)
    return states, _claimed(claimed.fetchall(), marks)


def _claim(worker_id: int, boot_id: UUID, limit: int, marks: Marks) -> Cursor:
    starts = marks.begin()
    parameters = {
        "worker_id": worker_id,
        "boot_id": boot_id,
        "limit": limit,
        "lanes": list(starts),
        "seqs": [seq for (seq,) in starts.values()],
        # The guard enforces the timeout; recovery steps in only after kill and report had time.
        "grace_seconds": conf().kill_grace_seconds + conf().lease_seconds,
    }
    return statements.execute("claim", parameters)


def _claimed(rows: Sequence[tuple], marks: Marks) -> list[Claimed]:
    # Not the last but the first of a lane: what others hold locked between may come back.
    marks.end({lane: (seq,) for *_, lane, seq in sorted(rows, key=itemgetter(-1), reverse=True)})
    return [Claimed._make(row[:-2]) for row in rows]


def _end(endings: Sequence[Ending], worker_id: int | None, proven: bool) -> Cursor:
    # In order of task id: that is the order in which leases are locked.
    sent = columns(Ending._fields, sorted(endings, key=itemgetter(0)))
    for name, default in Ending._field_defaults.items():
        # A column of nothing but its default goes as an empty one: end.sql fills it up again.
        if sent[name].count(default) == len(endings):
            sent[name] = []
    dts = conf()
    parameters = {
        **sent,
        "worker_id": worker_id,
        "proven": proven,
        "max_losses": dts.max_losses,
        "backoff_base_seconds": dts.backoff_base_seconds,
        "backoff_ceiling_seconds": dts.backoff_ceiling_seconds,
    }
    return statements.execute("end", parameters)


def _reported(
    endings: Sequence[Ending], rows: Sequence[tuple], worker_id: int | None
) -> dict[int, str]:
    states = dict(rows)
    if Status.QUEUED in states.values():
        wakeups.notify(wakeups.READY)
    if Status.PENDING in states.values():
        wakeups.notify(wakeups.SUBMITTED)
    return states | _reported_before([e for e in endings if e.task_id not in states], worker_id)


def _reported_before(endings: Sequence[Ending], worker_id: int | None) -> dict[int, str]:
    """Of reports that found no lease, those that only repeat what is recorded."""
    if not endings:
        return {}
    recorded = {
        (attempt.task_id, attempt.fencing_token, attempt.outcome, attempt.worker_id): attempt
        for attempt in Attempt.objects.filter(
            task_id__in=[ending.task_id for ending in endings]
        ).select_related("task")
    }
    found = {}
    for ending in endings:
        key = (ending.task_id, ending.fencing_token, str(ending.outcome), worker_id)
        if attempt := recorded.get(key):
            found[ending.task_id] = attempt.task.status
    return found


# -- recovery --------------------------------------------------------------------------------


def recover(worker_ids: Sequence[int]) -> dict[int, str]:
    """Takes back what absent workers held, once it was claimed a lease ago.

    The caller has locked these workers' rows and knows from them that they are absent, so no
    heartbeat can renew a lease meanwhile.
    """
    lapsed = timedelta(seconds=conf().lease_seconds)
    leases = Lease.objects.filter(worker_id__in=worker_ids, claimed_at__lt=Now() - lapsed)
    return _end_leases(leases, Outcome.LOST, "its worker went silent", proven=False)


def recover_boot(worker_id: int) -> dict[int, str]:
    """Takes back at once what a former, provably dead boot of this worker held."""
    leases = Lease.objects.filter(worker_id=worker_id)
    return _end_leases(leases, Outcome.LOST, "its worker died", proven=True)


def release_unheld(worker_id: int, held: Iterable[int]) -> dict[int, str]:
    """Takes back what a live worker no longer knows of, once it was claimed a lease ago."""
    lapsed = timedelta(seconds=conf().lease_seconds)
    leases = Lease.objects.filter(worker_id=worker_id, claimed_at__lt=Now() - lapsed).exclude(
        task_id__in=list(held)
    )
    return _end_leases(leases, Outcome.RELEASED, "its worker no longer held it", proven=False)


def expire() -> dict[int, str]:
    """Fails attempts that are past their own deadline although their worker lives."""
    leases = Lease.objects.filter(deadline_at__lt=Now())
    return _end_leases(leases, Outcome.TIMED_OUT, "ran past its deadline", proven=False)


def _end_leases(leases, outcome: Outcome, error: str, *, proven: bool) -> dict[int, str]:
    endings = [
        Ending(task_id=task_id, fencing_token=token, outcome=outcome, error=error)
        for task_id, token in leases.values_list("task_id", "fencing_token")
    ]
    return report(endings, proven=proven) if endings else {}
