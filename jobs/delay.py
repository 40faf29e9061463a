"""Refuses submits while the database is slow to store them, before they pile up."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from dtsproject.conf import conf
from jobs.backlog import Overloaded
from jobs.submission import BATCH

# Of the eight threads of a process (gunicorn.conf.py) two are left, to refuse and to answer others.
MOST_AT_ONCE = 6
PROBE_SECONDS = 1.0


class Delay:
    """How the submits of this process fare: each has DTS_MAX_DATABASE_DELAY_SECONDS for every
    BATCH of tasks or part of it.

    The database is slow once a submit took longer, or has waited longer while none was stored in
    time. Then one at a time is let in, a second after the last one's end, until one is stored in
    time; the others are refused at once, whatever the database does.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due_at: list[float] = []  # of each submit under way
        self._in_time_at = 0.0
        self._was_late = False
        self._probe_at = 0.0

    @contextmanager
    def limited(self, tasks: int) -> Iterator[None]:
        """Around all that a submit of so many tasks asks of the database. Raises Overloaded."""
        limit = conf().max_database_delay_seconds
        due_at = self._begin(limit, limit * -(-tasks // BATCH))
        try:
            yield
        finally:
            self._end(due_at)

    def _begin(self, limit: float, allowed: float) -> float:
        with self._changed:
            self._changed.wait_for(lambda: self._is_free() or self._is_slow(limit), limit)
            if not self._is_free() or self._is_slow(limit):
                raise Overloaded(
                    f"The database takes longer to store a submit than the {limit:g} s that "
                    "DTS_MAX_DATABASE_DELAY_SECONDS allows; submit again later"
                )
            due_at = time.monotonic() + allowed
            self._due_at.append(due_at)
        return due_at

    def _is_free(self) -> bool:
        return len(self._due_at) < MOST_AT_ONCE

    def _is_slow(self, limit: float) -> bool:
        now = time.monotonic()
        if self._was_late:
            return bool(self._due_at) or now < self._probe_at
        return now > min(self._due_at, default=now) and now > self._in_time_at + limit

    def _end(self, due_at: float) -> None:
        with self._changed:
            now = time.monotonic()
            self._due_at.remove(due_at)
            self._was_late = now > due_at
            if self._was_late:
                self._probe_at = now + PROBE_SECONDS
            else:
                self._in_time_at = now
            self._changed.notify_all()


delay = Delay()
