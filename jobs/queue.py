"""Every write to a task's state: a function a verb, a guarded statement (or few) each.

A task that has not ended is in exactly one narrow table, and each verb moves that row and the
wide row in the same statement, so they cannot disagree. Every verb locks narrow rows first, in
order of task id (those that do not wait, SKIP LOCKED, in any order), then wide rows. All times
are the database's.
"""

import json
from collections.abc import Iterable, Sequence
from datetime import timedelta
from operator import itemgetter
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models.functions import Now
from psycopg import Cursor

from dtsproject import wakeups
from dtsproject.conf import conf
from dtsproject.errors import Refusal
from jobs import statements, uniqueness
from jobs.cancelling import cancel, cancel_job
from jobs.dependencies import hold_up_release, release
from jobs.limits import (
    limit_key,
    limit_queue,
    sweep_permits,
    unlimit_key,
)
from jobs.marks import Marks
from jobs.models import Attempt, Job, Lease
from jobs.pausing import pause, pause_job, resume, resume_job
from jobs.priority import prioritise
from jobs.promotion import HEAD, Lines, promote, recall
from jobs.specs import Claimed, Ending
from jobs.states import Outcome, Status
from jobs.submission import TooManyLanes, submit, submit_all
from jobs.uniqueness import Duplicate

# Silence proves no death; but what was lost so often may take every worker with it, one by one.
LOST_PER_DEATH = 10
# How long what is ready is left to other workers than the one on which it failed last.
ELSEWHERE_SECONDS = 5.0
# After every key of `ready`: no room is made for any task.
NO_ROOM = (2**63 - 1,) * 3

__all__ = [
    "HEAD",
    "Duplicate",
    "Lines",
    "TooManyLanes",
    "WrongState",
    "bring_due",
    "cancel",
    "cancel_job",
    "claim",
    "expire",
    "fail_overdue",
    "limit_key",
    "limit_queue",
    "pause",
    "pause_job",
    "prioritise",
    "promote",
    "recall",
    "recover",
    "recover_boot",
    "release",
    "release_unheld",
    "report",
    "report_and_claim",
    "resume",
    "resume_job",
    "retry",
    "settle",
    "submit",
    "submit_all",
    "sweep_permits",
    "unlimit_key",
]


class WrongState(Refusal):
    code, title = "wrong_state", "Not in this state"


# -- clients ---------------------------------------------------------------------------------


def retry(task_ids: Iterable[int]) -> list[int]:
    """Gives failed and cancelled tasks a new generation; returns the ids of those retried.

    With a task come back those that were cancelled because it ended badly. One that was cancelled
    because of another comes back with that one only. Nothing of a job comes back whose unique key
    another holds: raises Duplicate if that leaves nothing.
    """
    ids = sorted(task_ids)
    with transaction.atomic():
        refused = uniqueness.regain(ids)
        hold_up_release()
        retried = [pk for (pk,) in statements.rows("retry", {"ids": ids})]
        if refused and not retried:
            raise refused[0]
    if retried:
        wakeups.notify(wakeups.SUBMITTED)
    return retried


# -- the scheduler ---------------------------------------------------------------------------


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
    """Leases queued tasks, of up to `limit` slots together, to this boot of the worker, in policy
    order.

    `marks` are the caller's, kept from claim to claim; without, each looks from the head.
    """
    marks = marks or Marks()
    parameters = _claim_parameters(worker_id, boot_id, limit, marks)
    return _claimed(statements.rows("claim", parameters), marks)


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
    """`report` and `claim` in one commit, and in one round trip if there are no wide tasks."""
    parameters = _claim_parameters(worker_id, boot_id, limit, marks)
    with statements.pipeline():
        ended = _end(endings, worker_id, proven=True)
        claimed = statements.execute("claim", parameters)
    states = _reported(endings, ended.fetchall(), worker_id)
    return states, _claimed(claimed.fetchall(), marks)


def _claim_parameters(worker_id: int, boot_id: UUID, limit: int, marks: Marks) -> dict[str, Any]:
    starts = marks.begin()
    parameters: dict[str, Any] = {
        "worker_id": worker_id,
        "boot_id": boot_id,
        "limit": limit,
        "lanes": list(starts),
        "seqs": [seq for (seq,) in starts.values()],
        "elsewhere_seconds": ELSEWHERE_SECONDS,
        "lease_seconds": conf().lease_seconds,
        # The guard enforces the timeout; recovery steps in only after kill and report had time.
        "grace_seconds": conf().kill_grace_seconds + conf().lease_seconds,
    }
    (room,) = (marks.wide_lanes and statements.rows("room", parameters)) or (NO_ROOM,)
    names = ("room_score", "room_job_id", "room_task_id")
    return parameters | dict(zip(names, room, strict=True))


def _claimed(rows: Sequence[tuple], marks: Marks) -> list[Claimed]:
    # Not the last but the first of a lane: what others hold locked between may come back.
    first_last = sorted(rows, key=itemgetter(-2), reverse=True)
    marks.end({lane: (seq,) for *_, lane, seq, _ in first_last})
    for *_, wide_lanes in rows[:1]:
        marks.wide_lanes = wide_lanes
    return [Claimed._make(row[:-3]) for row in rows]


def _end(endings: Sequence[Ending], worker_id: int | None, proven: bool) -> Cursor:
    # In order of task id: that is the order in which leases are locked.
    sent = statements.columns(Ending._fields, sorted(endings, key=itemgetter(0)))
    for name, default in Ending._field_defaults.items():
        # A column of nothing but its default goes as an empty one: end.sql fills it up again.
        if name != "outcome" and sent[name].count(default) == len(endings):
            sent[name] = []
    dts = conf()
    rules = {
        "base_seconds": dts.backoff_base_seconds,
        "ceiling_seconds": dts.backoff_ceiling_seconds,
        "fail_on": [],
    }
    parameters = {
        **sent,
        "worker_id": worker_id,
        "proven": proven,
        "max_losses": dts.max_losses,
        "max_lost_attempts": LOST_PER_DEATH * dts.max_losses,
        "retry": json.dumps(rules),
    }
    return statements.execute("end", parameters)


def _reported(
    endings: Sequence[Ending], rows: Sequence[tuple], worker_id: int | None
) -> dict[int, str]:
    states = {task_id: status for task_id, status, _ in rows}
    if any(told for *_, told in rows):
        wakeups.notify(wakeups.ENDED)
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


def fail_overdue(*, batch: int) -> list[int]:
    """Fails what waits, wherever, although its deadline has passed; returns the tasks' ids."""
    rows = statements.rows("overdue", {"batch": batch})
    if any(told for _, told in rows):
        wakeups.notify(wakeups.ENDED)
    return [task_id for task_id, _ in rows]


def _end_leases(leases, outcome: Outcome, error: str, *, proven: bool) -> dict[int, str]:
    endings = [
        Ending(task_id=task_id, fencing_token=token, outcome=outcome, error=error)
        for task_id, token in leases.values_list("task_id", "fencing_token")
    ]
    return report(endings, proven=proven) if endings else {}
