"""The verb by which people end what has not ended."""

from collections.abc import Iterable, Iterator, Sequence

from django.db.models.functions import Now

from dtsproject import wakeups
from jobs import statements
from jobs.models import Job, Task
from jobs.states import Status

# Of tasks in a statement, which has its time limit however large a job is.
CHUNK = 5_000


def chunks(task_ids: Iterable[int]) -> Iterator[Sequence[int]]:
    """The ids in the order in which their rows are locked, as many as a statement takes."""
    ids = sorted(set(task_ids))
    return (ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK))


def cancel(task_ids: Iterable[int], *, running: bool = True) -> dict[int, str]:
    """Cancels what waits at once and, if `running`, asks for the end of what runs.

    Returns the state each touched task was left in: `cancelled`, or `in_progress` until its
    worker confirms that its process tree is dead. Tasks that had ended are not touched.
    """
    touched: dict[int, str] = {}
    for chunk in chunks(task_ids):
        touched |= _cancel(set(chunk), running)
    if Status.IN_PROGRESS in touched.values():
        wakeups.notify(wakeups.CANCELLED)
    return touched


def _cancel(left: set[int], running: bool) -> dict[int, str]:
    touched: dict[int, str] = {}
    while left:
        # A new statement each time: it sees a task that another verb moved meanwhile.
        moved = dict(statements.rows("cancel", {"ids": sorted(left), "running": running}))
        touched |= moved
        left -= moved.keys()
        live = (
            Task.objects.live()
            if running
            else Task.objects.live().exclude(status=Status.IN_PROGRESS)
        )
        left = set(live.filter(pk__in=left).values_list("pk", flat=True))
    return touched


def cancel_job(job_id: int, *, running: bool = True) -> dict[int, str]:
    """Cancels all of a job's tasks that have not ended, or have not started; see `cancel`."""
    if running:
        Job.objects.filter(pk=job_id, finished_at=None).update(cancelled_at=Now())
    live = Task.objects.live().filter(job_id=job_id)
    return cancel(live.values_list("pk", flat=True), running=running)
