"""The verb by which people reorder what waits."""

from collections.abc import Iterable

from dtsproject import wakeups
from dtsproject.conf import conf, load
from jobs import statements
from jobs.models import Job, Task
from jobs.states import Status
from jobs.submission import Scores


def prioritise(task_ids: Iterable[int], priority: int) -> list[int]:
    """Gives tasks that have not started another priority; returns the ids of those.

    What is queued goes back to pending, and is promoted where it now belongs.
    """
    left = set(task_ids)
    touched: list[int] = []
    # A new statement each time: it sees a task that another verb moved meanwhile.
    while scores := _scores(priority, left):
        parameters = {"ids": list(scores), "scores": list(scores.values()), "priority": priority}
        moved = [pk for (pk,) in statements.rows("prioritise", parameters)]
        touched += moved
        left -= set(moved)
    if touched:
        wakeups.notify(wakeups.SUBMITTED)
    return touched


def _scores(priority: int, task_ids: Iterable[int]) -> dict[int, int]:
    """The policy's score, at this priority, of those of the tasks that have not started."""
    idle = Task.objects.live().exclude(status=Status.IN_PROGRESS).filter(pk__in=task_ids)
    found = list(idle.values_list("pk", "job_id", "run_after", "name", "kind"))
    jobs = Job.objects.in_bulk({job_id for _, job_id, *_ in found})
    scores = {pk: Scores(load(conf().policy), job) for pk, job in jobs.items()}
    return {pk: scores[job_id][(priority, *more)] for pk, job_id, *more in found}
