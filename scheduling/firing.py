"""Makes the firings of schedules: at its time, each once, however many schedulers run.

Whoever makes a firing holds its schedule's row; the firing's row, its job and the schedule's next
time are one transaction. So a scheduler killed at any line leaves all of it or nothing, and what it
leaves is due for the next. The unique key of `firings` has the last word.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import structlog
from django.db import DataError, IntegrityError, connection, transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.db.models.functions import Now

from dtsproject.errors import Refusal
from jobs import queue
from jobs.backlog import Overloaded, backlog
from jobs.models import Job, Task
from scheduling import plan
from scheduling.models import Firing, Outcome, Overlap, Schedule

log = structlog.get_logger(__name__)

# Of a transaction: what is made first in it can be seen when the last is.
BATCH = 20
# What makes a template invalid. What the database's absence raises is no fault of it.
INVALID = (Refusal, DataError, IntegrityError)
MOVED = ("next_run_at", "last_run_at", "last_job_id", "paused_at", "paused_reason")
MOVE = """
UPDATE schedules SET next_run_at = moved.next_run_at, last_run_at = moved.last_run_at,
    last_job_id = moved.last_job_id, paused_at = moved.paused_at,
    paused_reason = moved.paused_reason
FROM unnest(%s::bigint[], %s::timestamptz[], %s::timestamptz[], %s::bigint[], %s::timestamptz[],
    %s::text[])
    AS moved (id, next_run_at, last_run_at, last_job_id, paused_at, paused_reason)
WHERE schedules.id = moved.id
"""


def make_due() -> int:
    """Makes the next time of up to BATCH schedules that are due; how many were moved on.

    Raises Overloaded if the backlog takes nothing more: they stay due.
    """
    with transaction.atomic():
        found = _locked(Schedule.objects.filter(next_run_at__lte=Now()).order_by("next_run_at"))
        plans = {schedule.pk: _plan(schedule) for schedule in found}
        made = _made_before(plans)
        firings = [
            firing for schedule in found if (firing := _make(schedule, plans[schedule.pk], made))
        ]
        _fire([firing for firing in firings if firing.outcome == Outcome.FIRED])
        Firing.objects.bulk_create(firings)
        _move(found)
    return len(found)


def make_waiting() -> int:
    """Makes the oldest waiting firing of up to BATCH schedules whose last job has ended."""
    waiting = Firing.objects.filter(schedule=OuterRef("pk"), outcome=Outcome.WAITING)
    running = Task.objects.live().filter(job_id=OuterRef("last_job_id"))
    with transaction.atomic():
        found = _locked(Schedule.objects.filter(Exists(waiting), ~Exists(running), paused_at=None))
        firings = []
        for schedule in found:
            firing = _waiting(schedule).order_by("scheduled_at").first()
            # Looked for anew: another scheduler may have made it before the row was locked.
            if firing and not is_busy(schedule):
                firing.schedule, firing.outcome, firing.fired_at = schedule, Outcome.FIRED, Now()
                firings.append(firing)
        _fire(firings)
        for firing in firings:
            firing.save(update_fields=["outcome", "job_id", "fired_at"])
        _move(found)
    return len(firings)


def is_busy(schedule: Schedule) -> bool:
    """Whether the job of its last firing has not ended."""
    last = schedule.last_job_id
    return last is not None and Task.objects.live().filter(job_id=last).exists()


def submit(firings: Sequence[Firing]) -> list[Job]:
    """Submits the jobs of these firings, all or none of them.

    Raises Overloaded, and another Refusal where a template is not valid.
    """
    from scheduling.template import job_or_refusal

    specs = [job_or_refusal(firing.schedule, firing.scheduled_at) for firing in firings]
    backlog.admit(sum(len(spec.tasks) for spec in specs))
    by = [f"schedule {firing.schedule.name}" for firing in firings]
    return queue.submit_all(list(zip(specs, by, strict=True)))


def _locked(schedules: Any) -> list[Any]:
    """Up to BATCH of them that nobody else holds, each with the database's time, `read_at`."""
    return list(schedules.annotate(read_at=Now()).select_for_update(skip_locked=True)[:BATCH])


def _plan(schedule: Any) -> plan.Due | None:
    """What is due of it; None where that cannot be told: it is paused then."""
    try:
        due = plan.due(schedule, schedule.next_run_at, schedule.read_at)
    except Refusal as refusal:
        _pause(schedule, refusal.detail)
        return None
    if due.let_go:
        log.warning("times_let_go", schedule=schedule.name, at_least=due.let_go)
    return due


def _made_before(plans: Mapping[int, plan.Due | None]) -> set[tuple[int, datetime]]:
    """Of these schedules and times, those of which a firing was made before."""
    times = [due.moment.scheduled_at for due in plans.values() if due and due.moment]
    found = Firing.objects.filter(schedule__in=list(plans), scheduled_at__in=times)
    return set(found.values_list("schedule_id", "scheduled_at"))


def _make(
    schedule: Schedule, due: plan.Due | None, made: set[tuple[int, datetime]]
) -> Firing | None:
    """The firing of what is due, if any, and the schedule moved on; neither is stored yet."""
    if due is None:
        return None
    firing = None
    if due.moment and (schedule.pk, due.moment.scheduled_at) not in made:
        firing = Firing(schedule=schedule, scheduled_at=due.moment.scheduled_at, fired_at=Now())
        firing.outcome = _outcome(schedule)
        if firing.outcome == Outcome.WAITING:
            firing.fired_at = None
    schedule.next_run_at = due.next_run_at
    return firing


def _outcome(schedule: Schedule) -> Outcome:
    """What the overlap policy makes of a time that has come."""
    if schedule.overlap == Overlap.ALLOW:
        return Outcome.FIRED
    ahead = _waiting(schedule).count() if schedule.overlap == Overlap.QUEUE else 0
    if not ahead and not is_busy(schedule):
        return Outcome.FIRED
    may_wait = schedule.overlap == Overlap.QUEUE and ahead < schedule.catch_up_limit
    return Outcome.WAITING if may_wait else Outcome.SKIPPED


def _fire(firings: Sequence[Firing]) -> None:
    """Submits the firings' jobs; pauses the schedules of those that are refused. One whose unique
    key another job holds is skipped, as if by the overlap policy.

    Raises Overloaded.
    """
    if not firings:
        return
    try:
        jobs = submit(firings)
    except Overloaded:
        raise
    except INVALID as error:
        if len(firings) > 1:  # which of them?
            for firing in firings:
                _fire([firing])
            return
        if isinstance(error, queue.Duplicate):
            firings[0].outcome = Outcome.SKIPPED
            return
        firings[0].outcome = Outcome.REFUSED
        _pause(firings[0].schedule, getattr(error, "detail", str(error)))
        return
    for firing, job in zip(firings, jobs, strict=True):
        firing.job_id = firing.schedule.last_job_id = job.pk
        firing.schedule.last_run_at = firing.schedule.read_at


def _pause(schedule: Any, reason: str) -> None:
    schedule.paused_at, schedule.paused_reason = schedule.read_at, reason
    schedule.next_run_at = None
    log.error("schedule_paused", schedule=schedule.name, reason=reason)


def _waiting(schedule: Schedule) -> QuerySet[Firing]:
    return Firing.objects.filter(schedule=schedule, outcome=Outcome.WAITING)


def _move(schedules: Sequence[Schedule]) -> None:
    """Stores where these schedules are now."""
    if schedules:
        names = ("pk", *MOVED)
        columns = [[getattr(schedule, name) for schedule in schedules] for name in names]
        with connection.cursor() as cursor:
            cursor.execute(MOVE, columns)
