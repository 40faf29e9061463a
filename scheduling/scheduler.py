"""Decides what may run next: pending -> queued, in batches, in the policy's order.

Any number of schedulers may run; an advisory lock lets one at a time promote. Little is queued
ahead of what workers can start, so that urgent work is never behind a long queue: each lane has a
window of twice its slots, or of what its workers claimed within LOOK_AHEAD_SECONDS if that is
more. What is more urgent than the window's end recalls that end, and is promoted first.
"""

import time
from dataclasses import dataclass

from django.db import connection, transaction

from dtsproject import wakeups
from dtsproject.conf import conf
from dtsproject.loop import Loop
from jobs import queue, statements

# "dts" and "promote" as two numbers for pg_try_advisory_xact_lock(int, int).
PROMOTION_LOCK = (0x647473, 1)
LOOK_AHEAD_SECONDS = 0.1
WIDEST_WINDOW = 5_000
# Between ticks while a window is wider than its slots need.
HURRIED_SECONDS = LOOK_AHEAD_SECONDS / 5
SETTLED_AT_ONCE = 500


@dataclass
class Window:
    """How far ahead a lane is queued: `size` tasks, by how fast they were claimed."""

    size: int
    left_ready: int = 0
    at: float = 0.0

    def resize(self, slots: int, ready: int, now: float) -> int:
        """The size that suits, `ready` tasks being left of what the last tick left."""
        rate = max(0, self.left_ready - ready) / (now - self.at)
        wanted = int(rate * LOOK_AHEAD_SECONDS)
        if ready == 0 and self.left_ready:
            wanted = 4 * self.size  # it ran dry: nobody knows how fast it could have been
        elif wanted < self.size:
            wanted = (wanted + self.size) // 2
        self.size = max(2 * slots, min(wanted, WIDEST_WINDOW))
        return self.size


class Scheduler(Loop):
    channels = (wakeups.SUBMITTED,)

    def __init__(self) -> None:
        super().__init__()
        self.full_tick = conf().promote_batch
        self.windows: dict[int, Window] = {}
        self._settled_up_to: int | None = None

    def tick(self) -> int:
        moved = self.promote() + queue.bring_due(batch=conf().promote_batch)
        settled, self._settled_up_to = queue.settle(
            after=self._settled_up_to or 0, limit=SETTLED_AT_ONCE
        )
        return moved + settled

    def promote(self) -> int:
        """Fills the window of every lane that a live worker serves. Returns tasks promoted."""
        with transaction.atomic():
            if not _locked():
                return 0
            found = statements.rows("window", {"lease_seconds": conf().lease_seconds})
            if overtaken := [lane for lane, _, _, urgent in found if urgent]:
                queue.recall(overtaken)
                found = statements.rows("window", {"lease_seconds": conf().lease_seconds})
            rooms = self._rooms({lane: (slots, ready) for lane, slots, ready, _ in found})
            promoted = queue.promote(rooms, batch=conf().promote_batch) if rooms else 0
            if promoted:
                wakeups.notify(wakeups.READY)
        return promoted

    def _rooms(self, lanes: dict[int, tuple[int, int]]) -> dict[int, int]:
        """How many more tasks each lane's window takes, given its slots and ready tasks."""
        now, rooms, hurry = time.monotonic(), {}, False
        for lane, (slots, ready) in lanes.items():
            window = self.windows.setdefault(lane, Window(2 * slots))
            room = window.resize(slots, ready, now) - ready
            window.at, window.left_ready = now, max(ready, window.size)
            hurry |= window.size > 2 * slots
            if room > 0:
                rooms[lane] = room
        self.interval_seconds = HURRIED_SECONDS if hurry else conf().scheduler_interval_seconds
        return rooms


def _locked() -> bool:
    """A statement of its own: one that also counted would count on a snapshot from before."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s, %s)", PROMOTION_LOCK)
        return cursor.fetchone()[0]
