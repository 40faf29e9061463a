"""What stands in the way of a lane's tasks: no worker that serves it, or no scheduler."""

from dataclasses import dataclass
from datetime import timedelta

from django.db.models.functions import Now

from dtsproject.bounded import CAP, Count
from jobs import statements
from jobs.models import Deferred, Lane
from scheduling.scheduler import look

# A scheduler that runs promotes within its interval; one that has not for this long does not run.
STUCK_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Queueing:
    """A lane in which tasks wait; `slots` is how many of them the live workers that serve it run
    at a time, none while its queue is paused. `full` is one whose queue is at its limit."""

    lane: Lane
    waiting: Count
    slots: int
    stuck: bool
    paused: bool
    full: bool


def overdue() -> bool:
    """Whether tasks are due and no scheduler has let them be promoted."""
    late = Now() - timedelta(seconds=STUCK_SECONDS)
    return Deferred.objects.filter(due_at__lt=late).exists()


def queueing() -> list[Queueing]:
    """Every lane in which tasks wait."""
    served = {lane.id: (lane.slots, lane.ready) for lane in look({}, {})}
    heads = statements.rows("heads", {"limit": CAP + 1})
    lanes = Lane.objects.in_bulk([lane for lane, *_ in heads])
    found = []
    for lane, waiting, seconds, paused, full in heads:
        slots, ready = served.get(lane, (0, 0))
        stuck = bool(slots) and ready == 0 and not full and seconds > STUCK_SECONDS
        found.append(
            Queueing(
                lane=lanes[lane],
                waiting=Count(waiting),
                slots=slots,
                stuck=stuck,
                paused=paused,
                full=full,
            )
        )
    return found
