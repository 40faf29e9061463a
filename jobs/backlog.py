"""Refuses work past the backlog that DTS is set to take, before it costs anything."""

import threading
import time

from dtsproject.conf import conf
from dtsproject.errors import Refusal
from jobs import statements

# As in jobs/marks.py: looking takes a fiftieth of the time at most, however long it takes.
LOOKING_SHARE = 1 / 50
AT_LEAST_SECONDS = 1.0


class Overloaded(Refusal):
    status, code, title = 429, "overloaded", "Too much to do"
    retry_after_seconds = 5


class Backlog:
    """How many tasks wait, deferred ones included, as this process last counted them.

    Between counts it adds what it let in itself. Other processes do the same, so together they
    may pass the limit by what the others took in since each one's last count.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tasks = 0
        self._count_again_at = 0.0

    def admit(self, tasks: int) -> None:
        """Lets a job of this many tasks in. Raises Overloaded when too many wait already."""
        limit = conf().max_backlog
        with self._lock:
            if time.monotonic() >= self._count_again_at:
                self._count(limit)
            if self._tasks >= limit:
                raise Overloaded(
                    f"{limit:,} tasks or more wait to run, which is all that DTS_MAX_BACKLOG "
                    "allows; submit again later, or add workers"
                )
            self._tasks += tasks

    def _count(self, limit: int) -> None:
        began = time.monotonic()
        ((self._tasks,),) = statements.rows("backlog", {"limit": limit})
        now = time.monotonic()
        self._count_again_at = now + max(AT_LEAST_SECONDS, (now - began) / LOOKING_SHARE)


backlog = Backlog()
