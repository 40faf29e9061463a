"""How many tasks are where, for people: exact when few, capped when many, never a scan."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from dtsproject.bounded import CAP, Count
from jobs import statements
from jobs.models import Job
from jobs.states import Status

# A list draws many bars: beyond this many tasks of a state, a bar says so instead of counting on.
LIST_CAP = 2_000

# In the order in which bars show them.
ORDER = (
    Status.DONE,
    Status.IN_PROGRESS,
    Status.QUEUED,
    Status.PENDING,
    Status.FAILED,
    Status.CANCELLED,
)


@dataclass(frozen=True)
class Progress:
    """A job's tasks by state; a count that reached its cap is a lower bound."""

    counts: dict[Status, Count]

    def __getitem__(self, status: str) -> Count:
        return self.counts[Status(status)]

    @property
    def parts(self) -> list[tuple[Status, Count]]:
        return [(status, self.counts[status]) for status in ORDER]

    @property
    def capped(self) -> bool:
        return any(count.capped for count in self.counts.values())

    @property
    def total(self) -> Count:
        total = sum(min(count.value, count.cap) for count in self.counts.values())
        return Count(total + 1, total) if self.capped else Count(total, total)

    def state(self, job: Job) -> str:
        """The job's state, as its tasks' tell it: `cancelling` while cancelled ones still run,
        `paused` when it is and none runs."""
        live = (Status.IN_PROGRESS, Status.QUEUED, Status.PENDING)
        for status in live:
            if self.counts[status]:
                if job.cancelled_at:
                    return "cancelling"
                return "paused" if job.paused_at and status == Status.PENDING else status
        return next((s for s in (Status.FAILED, Status.CANCELLED) if self.counts[s]), Status.DONE)


def progress(job_ids: Iterable[int], *, cap: int = CAP) -> dict[int, Progress]:
    """How far each of these jobs is, counting up to `cap` tasks of each state."""
    found = {}
    for job_id, done, failed, cancelled, live, running, queued in statements.rows(
        "progress", {"ids": list(job_ids), "limit": cap + 1}
    ):
        # Two tables of a moving queue, one snapshot; but live is capped and they are not.
        pending = max(live - running - queued, 0)
        values = (done, running, queued, pending, failed, cancelled)
        counts = {s: Count(n, cap) for s, n in zip(ORDER, values, strict=True)}
        if live > cap:
            counts[Status.PENDING] = Count(cap + 1, cap)
        found[job_id] = Progress(counts)
    return found


def with_progress(jobs: Sequence[Any]) -> None:
    """Gives each of these jobs its `progress`, in one statement for all."""
    found = progress([job.pk for job in jobs], cap=LIST_CAP) if jobs else {}
    for job in jobs:
        job.progress = found[job.pk]


def totals() -> dict[str, Count]:
    """How many tasks are in each state, counting up to CAP."""
    (row,) = statements.rows("totals", {"limit": CAP + 1})
    return {status: Count(n) for status, n in zip(Status, row, strict=True)}
