"""The verbs by which people hold a queue or a job: paused work is neither promoted nor claimed.

A queue is a few lanes, which promotion and claim pass over. The tasks of a job stand among others',
so those that could start move to `blocked`, and what comes back later goes there, too.
"""

from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from dtsproject import wakeups
from jobs import statements
from jobs.models import Job, Lane, Queue
from jobs.promotion import recall

FIRST = -(2**63)  # below every score and dispatch sequence


def pause(name: str) -> bool:
    """Holds the queue; what was queued goes back to pending, what runs goes on.

    What another transaction moves meanwhile may stay queued, but nobody claims it. Returns whether
    the queue was not paused before.
    """
    with transaction.atomic():
        if not Queue.objects.filter(name=name, paused_at=None).update(paused_at=Now()):
            return False
        lanes = Lane.objects.filter(queue=name).values_list("pk", flat=True)
        recall(dict.fromkeys(lanes, (FIRST, FIRST)))
    return True


def resume(name: str) -> bool:
    """Lets the queue go on. Returns whether it was paused."""
    resumed = Queue.objects.filter(name=name, paused_at__isnull=False).update(paused_at=None)
    if resumed:
        wakeups.notify(wakeups.SUBMITTED)
        wakeups.notify(wakeups.READY)
    return bool(resumed)


def pause_job(job_id: int) -> bool:
    """Holds the job: what waits or is queued is put aside, what runs goes on.

    Once this has committed, nothing of the job can be promoted or claimed before it is resumed.
    Returns whether it was not paused before; one that has finished cannot be.
    """
    with transaction.atomic():
        if not _lock(Job.objects.filter(pk=job_id, paused_at=None, finished_at=None)):
            return False
        Job.objects.filter(pk=job_id).update(paused_at=Now())
        while _hold(job_id):
            pass
    return True


def resume_job(job_id: int) -> bool:
    """Lets the job go on, in its old place. Returns whether it was paused."""
    with transaction.atomic():
        if not _lock(Job.objects.filter(pk=job_id, paused_at__isnull=False)):
            return False
        Job.objects.filter(pk=job_id).update(paused_at=None)
        statements.execute("let_go", {"job_id": job_id})
    wakeups.notify(wakeups.SUBMITTED)
    return True


def _lock(jobs: QuerySet[Job]) -> bool:
    """Whether there was a job to lock.

    Verbs by which a task comes back read `paused_at` under FOR KEY SHARE, and hold narrow rows by
    then. That conflicts with this lock, whose holder waits for none of those rows, and not with
    the update of a job by cancel, which does. It must be taken in the (sub)transaction of the
    update, or who waited for it would be given the row as it was before.
    """
    return bool(jobs.select_for_update().values_list("pk", flat=True))


def _hold(job_id: int) -> int:
    ((seen,),) = statements.rows("hold", {"job_id": job_id})
    return seen
