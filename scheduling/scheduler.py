"""Decides what may run next: pending -> queued, in batches, in the policy's order.

Any number of schedulers may run; an advisory lock lets one at a time promote. Little is queued
ahead of what workers can start, so that urgent work is never behind a long queue: each lane has a
window of twice its slots, which grows while workers empty it between two ticks and shrinks again.
What is more urgent than the window recalls it, and is promoted first.
"""

from django.db import connection, transaction

from dtsproject import wakeups
from dtsproject.conf import conf
from dtsproject.loop import Loop
from jobs import queue, statements

# "dts" and "promote" as two numbers for pg_try_advisory_xact_lock(int, int).
PROMOTION_LOCK = (0x647473, 1)
WIDEST_WINDOW = 2_000
SETTLED_AT_ONCE = 500


class Scheduler(Loop):
    channels = (wakeups.SUBMITTED,)

    def __init__(self) -> None:
        super().__init__()
        self.interval_seconds = conf().scheduler_interval_seconds
        self.full_tick = conf().promote_batch
        self.windows: dict[int, int] = {}
        self._settled_up_to: int | None = None

    def tick(self) -> int:
        moved = queue.bring_due(batch=conf().promote_batch) + self.promote()
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
            rooms = {
                lane: self._window(lane, slots, ready) - (0 if urgent else ready)
                for lane, slots, ready, urgent in found
            }
            rooms = {lane: room for lane, room in rooms.items() if room > 0}
            promoted = queue.promote(rooms, batch=conf().promote_batch) if rooms else 0
            if promoted:
                wakeups.notify(wakeups.READY)
        return promoted

    def _window(self, lane: int, slots: int, ready: int) -> int:
        """How many tasks may stand ready in the lane now."""
        window = self.windows.get(lane, 2 * slots)
        if ready == 0:
            window *= 2
        elif ready > window // 2:
            window //= 2
        self.windows[lane] = window = max(2 * slots, min(window, WIDEST_WINDOW))
        return window


def _locked() -> bool:
    """A statement of its own: one that also counted would count on a snapshot from before."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s, %s)", PROMOTION_LOCK)
        return cursor.fetchone()[0]
