"""Decides what may run next: pending -> queued, in batches, in the policy's order.

Any number of schedulers may run; an advisory lock lets one at a time promote. Little is queued
ahead of what workers can start, so that urgent work is never behind a long queue: each lane has a
window of twice its slots, or of what its workers claimed within LOOK_AHEAD_SECONDS if that is
more. What is more urgent than the window's end recalls that end, and is promoted first; what of
the end is still within the window follows it, and stays queued.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from django.db import connection, transaction

from dtsproject import wakeups
from dtsproject.conf import conf
from dtsproject.loop import Loop
from jobs import queue, statements
from jobs.marks import Marks
from jobs.promotion import PROMOTION_LOCK
from scheduling.firer import Firer

LOCK = "SELECT pg_try_advisory_xact_lock(%s, %s), EXISTS (SELECT FROM ended_parents)"
LOOK_AHEAD_SECONDS = 0.1
WIDEST_WINDOW = 5_000
# Between ticks while a window is wider than its slots need.
HURRIED_SECONDS = LOOK_AHEAD_SECONDS / 5
SETTLED_AT_ONCE = 500
# All permits are counted in each round, so they are swept before those of ended tasks prevail.
SWEEP_SECONDS, SWEEP_PERMITS = 1.0, 1_000
# Nobody says when a key has room again: so while lines move, ticks hurry.
LINES_HURRIED_SECONDS = 1.0


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
        if self.left_ready < self.size:
            wanted = 0  # there was no more to promote, so no window was too narrow
        elif ready == 0:
            wanted = 4 * self.size  # it ran dry: nobody knows how fast it could have been
        if wanted < self.size:
            wanted = (wanted + self.size) // 2
        self.size = max(2 * slots, min(wanted, WIDEST_WINDOW))
        return self.size

    def leave(self, ready: int, promoted: int, *, more_waits: bool) -> None:
        """Notes what a tick left: a window that is full, or will be, or all there was."""
        self.left_ready = max(ready, self.size) if more_waits else ready + promoted


class Scheduler(Loop):
    channels = (wakeups.SUBMITTED, wakeups.ENDED)

    def __init__(self) -> None:
        super().__init__()
        self.full_tick = conf().promote_batch
        self.windows: dict[int, Window] = {}
        self.waiting_marks, self.ready_marks = Marks(), Marks()
        self.lines = queue.Lines()
        self._lines_moved_at = self._swept_at = -math.inf
        self._unswept = 0
        self.firer = Firer()
        self._chores_at = 0.0
        self._settled_up_to: int | None = None
        self.more_to_tell = False

    def hear(self) -> None:
        """What was submitted may come before what was read last; its lowest score tells."""
        for channel, score in self._listener.heard() if self._listener else ():
            if channel == wakeups.ENDED:
                continue
            self.waiting_marks.forget(beyond=(int(score), 0, 0) if score else ())

    def pause(self) -> float:
        return min(self.interval_seconds, self.firer.seconds_left())

    def tick(self) -> int:
        fired = self.firer.tick()
        if fired:
            self.waiting_marks.forget()
        moved = fired + self.promote()
        if self.more_to_tell or self.lines.unfinished:  # of what limits held up so far
            moved = max(moved, self.full_tick)
        now = time.monotonic()
        if now < self._chores_at:
            return moved
        self._chores_at = now + conf().scheduler_interval_seconds / 2
        return moved + self._chores()

    def _chores(self) -> int:
        due = queue.bring_due(batch=conf().promote_batch)
        if due:
            self.waiting_marks.forget()
        settled, self._settled_up_to = queue.settle(
            after=self._settled_up_to or 0, limit=SETTLED_AT_ONCE
        )
        return due + settled

    def promote(self) -> int:
        """Fills the window of every lane that a live worker serves, with what the ends of other
        tasks let go, too. Returns tasks promoted."""
        self.more_to_tell = False
        with transaction.atomic():
            locked, any_ended = _locked()
            if not locked:
                return 0
            if any_ended:
                self._release()
            waiting, ready = self.waiting_marks.begin(), self.ready_marks.begin()
            lanes = look(waiting, ready)
            self.ready_marks.end({lane.id: (lane.first_seq,) for lane in lanes})
            rooms, batch = self._rooms(lanes), conf().promote_batch
            found = queue.promote(
                rooms,
                batch=batch,
                marks=waiting,
                overtaken=overtaken(lanes),
                lines=self._lines_if_limited(lanes),
            )
            self.waiting_marks.end({lane: last for lane, (_, last) in found.items() if last})
            self._leave(lanes, rooms, {lane: promoted for lane, (promoted, _) in found.items()})
            if found:
                wakeups.notify(wakeups.READY)
        return sum(promoted for promoted, _ in found.values())

    def _leave(
        self, lanes: list["LaneView"], rooms: dict[int, int], promoted: dict[int, int]
    ) -> None:
        self._unswept += sum(promoted.values())
        full = sum(promoted.values()) >= conf().promote_batch
        for lane in lanes:
            moved = promoted.get(lane.id, 0)
            more_waits = lane.id in rooms and (full or moved >= rooms[lane.id])
            self.windows[lane.id].leave(lane.ready, moved, more_waits=more_waits)

    def _release(self) -> None:
        """Has those told that wait for what has ended."""
        released = queue.release()
        self.more_to_tell = released.moved > 0 and released.more
        if released.lowest_score is not None:
            self.waiting_marks.forget(beyond=(released.lowest_score, 0, 0))

    def _lines_if_limited(self, lanes: list["LaneView"]) -> queue.Lines | None:
        self.lines.moved = self.lines.unfinished = False
        if not any(lane.limited for lane in lanes):
            return None
        now = time.monotonic()
        if now - self._swept_at >= SWEEP_SECONDS or self._unswept >= SWEEP_PERMITS:
            self._swept_at, self._unswept = now, 0
            queue.sweep_permits()
        return self.lines

    def _rooms(self, lanes: list["LaneView"]) -> dict[int, int]:
        """How many more tasks the window takes of each lane where some wait; below 0, fewer."""
        now, rooms = time.monotonic(), {}
        if self.lines.moved:
            self._lines_moved_at = now
        hurry = now - self._lines_moved_at < LINES_HURRIED_SECONDS
        for lane in lanes:
            window = self.windows.setdefault(lane.id, Window(2 * lane.slots))
            size = window.resize(lane.slots, lane.ready, now)
            window.at = now
            hurry |= size > 2 * lane.slots or (lane.ready == 0 and lane.head_score is not None)
            if lane.head_score is not None or lane.limited:
                rooms[lane.id] = size - lane.ready
        self.interval_seconds = HURRIED_SECONDS if hurry else conf().scheduler_interval_seconds
        return rooms


class LaneView(NamedTuple):
    """What jobs/sql/window.sql says of a lane that a live worker serves."""

    id: int
    slots: int
    ready: int
    first_seq: int
    tail_score: int | None
    head_score: int | None
    limited: bool


def overtaken(lanes: list[LaneView]) -> dict[int, tuple[int, int]]:
    """For each lane whose window ends with something less urgent than what waits: the score of
    that, and where the window begins."""
    return {
        lane.id: (lane.head_score, lane.first_seq)
        for lane in lanes
        if lane.head_score is not None
        and lane.tail_score is not None
        and lane.head_score < lane.tail_score
    }


def look(
    waiting: Mapping[int, tuple[int, ...]], ready: Mapping[int, tuple[int, ...]]
) -> list[LaneView]:
    """The lanes that live workers serve, their indexes read from these marks on."""
    before = (-(2**63),)
    marked = list({**ready, **waiting})
    keys = [(*ready.get(n, before), *waiting.get(n, queue.HEAD)) for n in marked]
    names = ("seqs", "scores", "job_ids", "task_ids")
    parameters = {
        "lanes": marked,
        "lease_seconds": conf().lease_seconds,
        **statements.columns(names, keys),
    }
    return list(map(LaneView._make, statements.rows("window", parameters)))


def _locked() -> tuple[bool, bool]:
    """Whether this scheduler may promote, and whether anything has ended that others wait for; what
    ended just now has its own wake-up.

    A statement of its own: one that also counted would count on a snapshot from before.
    """
    with connection.cursor() as cursor:
        cursor.execute(LOCK, PROMOTION_LOCK)
        return cursor.fetchone()
