"""The part of the scheduler's round that fires: it looks when something may be due."""

import time

import structlog
from django.db import connection

from dtsproject.conf import conf
from jobs.backlog import Overloaded
from scheduling.firing import make_due, make_waiting

log = structlog.get_logger(__name__)

# Until the next look where what is due is in other hands, and after a refusal for overload.
HELD_SECONDS, OVERLOADED_SECONDS = 0.02, 1.0
# Seconds until the next time of any schedule, and whether a firing waits: an index probe each.
LOOK = """
SELECT extract(epoch FROM (SELECT min(next_run_at) FROM schedules) - statement_timestamp())::float8,
    EXISTS (SELECT FROM firings WHERE outcome = 'waiting')
"""


class Firer:
    def __init__(self) -> None:
        self._look_at = 0.0

    def seconds_left(self) -> float:
        """How long nothing can be due, as far as is known."""
        return max(0.0, self._look_at - time.monotonic())

    def tick(self) -> int:
        """Makes a batch of what is due, if it is time to look. Returns how many schedules were
        moved on."""
        if self.seconds_left():
            return 0
        left, waiting = look()
        if left is not None:
            _prepare()
        try:
            moved = make_due() if left is not None and left <= 0 else 0
            made = make_waiting() if waiting else 0
            pause = self._pause(left, moved)
        except Overloaded as refusal:
            log.warning("firings_put_off", reason=refusal.detail)
            moved, made, pause = 0, 0, OVERLOADED_SECONDS
        self._look_at = time.monotonic() + pause
        return moved + made

    def _pause(self, left: float | None, moved: int) -> float:
        # A schedule made or changed meanwhile is seen within an interval.
        longest = conf().scheduler_interval_seconds
        if left is None:
            return longest
        if left <= 0:
            return 0.0 if moved else HELD_SECONDS
        return min(longest, left)


def look() -> tuple[float | None, bool]:
    with connection.cursor() as cursor:
        cursor.execute(LOOK)
        return cursor.fetchone()


def _prepare() -> None:
    """Loads what templates are checked by, which costs time and memory, ahead of the first."""
    import scheduling.template  # noqa: F401
