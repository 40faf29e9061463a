"""The tasks a worker runs now: started through the guard, their output read as it comes.

One thread does all of it, whatever the number of slots, so that neither a slow database nor a
talkative task holds up another. The agent asks from its own threads: `add`, `stop`, `renew`.
"""

import contextlib
import itertools
import math
import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable, Container, Iterable, Sequence
from uuid import UUID

import structlog

from dtsproject.conf import conf
from jobs.specs import Claimed, Ending, LogPart
from workers import executor
from workers.processes import Ended, Guard, GuardDied
from workers.run import Run, stdin

log = structlog.get_logger(__name__)

# As many tasks are taken in hand as ended within this time, to bridge a round trip to the server;
# but for one: its end, which may be that of a long task, is what makes the worker ask.
IN_HAND_SECONDS = 0.05
MOST_IN_HAND = 200
# What is in hand while none of it could start for so long goes back: others may have a free slot.
STALE_SECONDS = 0.25
# While so much is in hand that no slot will stand idle, endings are gathered for so long: one
# exchange with the server costs as much as ten tasks in it.
GATHER_SECONDS = 0.02
# Most tasks are over before that: their pipes are read at their end, and never watched.
WATCH_AFTER_SECONDS = 0.02
LOG_STREAMS = ("stdout", "stderr")


class Runner(threading.Thread):
    """Tasks of `slots` slots at a time, and a few more in hand where they are so short that a slot
    would stand idle while the next one is claimed. They start in the order in which they came."""

    def __init__(
        self,
        boot_id: UUID,
        slots: int,
        start_guard: Callable[[], Guard],
        on_end: Callable[[], None],
    ) -> None:
        super().__init__(name="runner", daemon=True)
        self.boot_id = boot_id
        self.environment = executor.base_environment()
        self.slots = slots
        self.start_guard = start_guard
        self.on_end = on_end
        self.lock = threading.RLock()
        self.in_hand: deque[Claimed] = deque()
        self.runs: dict[int, Run] = {}
        self.busy_slots = 0
        self.ended: list[Ending] = []
        self.guard = start_guard()
        self.lease_until = 0.0
        self._ends: deque[tuple[float, int]] = deque()  # when, and how many tasks
        self._unwatched: deque[tuple[float, Run]] = deque()  # since when
        self._report_at = math.inf
        self._progress_at = time.monotonic()
        self._held: dict[int, int] = {}
        self._keys = itertools.count(1)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self.guard.fileno(), selectors.EVENT_READ)
        self._wake_read, self._wake_write = os.pipe()
        self._selector.register(self._wake_read, selectors.EVENT_READ)

    # -- asked by the agent -------------------------------------------------------------------

    def room(self) -> int:
        """Of how many slots it can take tasks now."""
        with self.lock:
            in_hand = sum(task.slots for task in self.in_hand)
            return self.slots + self._ahead() - self.busy_slots - in_hand

    def _ahead(self) -> int:
        """How many tasks, of a slot each, should be in hand."""
        while self._ends and self._ends[0][0] < time.monotonic() - IN_HAND_SECONDS:
            self._ends.popleft()
        return min(MOST_IN_HAND, max(0, sum(number for _, number in self._ends) - 1))

    def add(self, tasks: Iterable[Claimed]) -> None:
        """Runs these tasks in this order, as slots are free; their endings come with `endings`."""
        with self.lock:
            if not self.in_hand:
                self._progress_at = time.monotonic()
            for task in tasks:
                self._held[task.task_id] = task.fencing_token
                self.in_hand.append(task)
            self._fill_slots()
        self._wake()

    def work(self) -> int:
        """Runs in the caller's thread what is to run there: nothing, here."""
        return 0

    def held(self) -> dict[int, int]:
        """The fencing token of each task that is in hand, runs, or has an ending to report."""
        with self.lock:
            return self._held.copy()

    def endings(self, limit: int | None = None) -> list[Ending]:
        """The oldest endings that are not forgotten."""
        with self.lock:
            return self.ended[:limit]

    def forget(self, endings: Sequence[Ending]) -> None:
        """Drops what `endings` gave: it was reported, or nobody wants it."""
        with self.lock:
            del self.ended[: len(endings)]
            for ending in endings:
                if self._held.get(ending.task_id) == ending.fencing_token:
                    del self._held[ending.task_id]

    def take_output(self) -> list[LogPart]:
        """What has been printed since the last call."""
        with self.lock:
            parts = [
                LogPart(run.task.task_id, run.task.fencing_token, stream, start, data)
                for run in self.runs.values()
                for stream in LOG_STREAMS
                for start, data in run.captured[stream].take(over=run.is_over)
            ]
            self.runs = {key: run for key, run in self.runs.items() if not run.is_over}
        return parts

    def stop(self, task_ids: Container[int], reason: str, *, now: bool = False) -> None:
        """Ends these tasks' process trees: TERM, grace, KILL; with `now`, KILL."""
        with self.lock, contextlib.suppress(GuardDied):  # then all of them end by that
            self.give_back(task_ids, reason)
            for key, run in self.runs.items():
                if run.task.task_id in task_ids and not run.is_over:
                    self.guard.kill(key, reason, now=now)

    def give_back(self, task_ids: Container[int], reason: str) -> None:
        """Ends those of these tasks that have not started."""
        with self.lock:
            for task in [task for task in self.in_hand if task.task_id in task_ids]:
                self.in_hand.remove(task)
                self.ended.append(executor.unstarted(task, reason))

    def give_back_stale(self) -> None:
        """Gives back what is in hand behind tasks that turned out to be long."""
        with self.lock:
            if self.in_hand and time.monotonic() - self._progress_at > STALE_SECONDS:
                self.give_back({task.task_id for task in self.in_hand}, "released")

    def renew(self, until: float) -> None:
        """Lets the guard keep every tree alive until `until` (CLOCK_BOOTTIME seconds)."""
        with self.lock:
            self.lease_until = until
            # A dead guard is replaced by the runner's thread, which renews with this.
            with contextlib.suppress(GuardDied):
                self.guard.renew(until)

    def _fill_slots(self) -> None:
        while self.in_hand and self._fits(self.in_hand[0]):
            self._start(self.in_hand.popleft())

    def _fits(self, task: Claimed) -> bool:
        return self.busy_slots + task.slots <= self.slots

    def _start(self, task: Claimed) -> None:
        command = executor.command(task, self.boot_id, self.environment)
        key, run = next(self._keys), Run(task)
        self.runs[key] = run
        self.busy_slots += task.slots
        names = (*LOG_STREAMS, "result") if command.wants_result else LOG_STREAMS
        fds = [stdin(command.stdin), *run.open(names)]
        self._unwatched.append((time.monotonic(), run))
        try:
            self.guard.spawn(
                key,
                command.argv,
                env=command.env,
                cwd=command.cwd,
                fds=fds,
                timeout_seconds=task.timeout_seconds,
                grace_seconds=conf().kill_grace_seconds,
            )
        except GuardDied:
            pass  # the runner's thread sees it too, and ends every run
        finally:
            for fd in fds:
                os.close(fd)

    def _wake(self) -> None:
        os.write(self._wake_write, b".")

    # -- its own thread -----------------------------------------------------------------------

    def run(self) -> None:
        try:
            while True:
                self._attend()
        except Exception:
            # Nobody would start, read or end a task any more, and the heartbeat would go on
            # renewing them. The guard sees this process end, and kills them.
            log.exception("runner_failed")
            os._exit(1)

    def _attend(self) -> None:
        for ready, _ in self._selector.select(self._patience()):
            if ready.fd == self._wake_read:
                os.read(self._wake_read, 4096)
            elif ready.data is not None:
                run, name = ready.data
                with self.lock:
                    run.read(name)
            else:
                self._hear_guard()
        self._watch()
        if time.monotonic() >= self._report_at:
            self._report_at = math.inf
            self.on_end()

    def _patience(self) -> float | None:
        """Seconds until a report or a look at a pipe is due."""
        with self.lock:
            watch_at = self._unwatched[0][0] + WATCH_AFTER_SECONDS if self._unwatched else math.inf
        due_at = min(watch_at, self._report_at)
        return None if due_at == math.inf else max(0.0, due_at - time.monotonic())

    def _watch(self) -> None:
        """From now on reads what those print that did not end soon."""
        with self.lock:
            since = time.monotonic() - WATCH_AFTER_SECONDS
            while self._unwatched and (
                self._unwatched[0][1].is_over or self._unwatched[0][0] <= since
            ):
                self._unwatched.popleft()[1].watch(self._selector)

    def _hear_guard(self) -> None:
        try:
            ended = self.guard.read_events()
        except GuardDied:
            ended = self._replace_guard()
        with self.lock:
            for event in ended:
                if run := self.runs.get(event.key):
                    self._finish(run, event)
            if ended:
                wait_seconds = GATHER_SECONDS if 2 * len(self.in_hand) > self._ahead() else 0
                self._report_at = min(self._report_at, time.monotonic() + wait_seconds)

    def _finish(self, run: Run, ended: Ended) -> None:
        run.finish()
        self.busy_slots -= run.task.slots
        self.ended.append(executor.ending(run.task, ended, run.captured))
        self.note_ends(1)
        self._fill_slots()

    def note_ends(self, number: int) -> None:
        self._progress_at = time.monotonic()
        self._ends.append((self._progress_at, number))

    def _replace_guard(self) -> list[Ended]:
        """Ends what the dead guard left behind, and goes on with a new one."""
        with self.lock:
            log.error("guard_died", busy_slots=self.busy_slots)
            self._selector.unregister(self.guard.fileno())
            self.guard.reap_orphans()
            self.guard = self.start_guard()
            self._selector.register(self.guard.fileno(), selectors.EVENT_READ)
            self.guard.renew(self.lease_until)
            return [Ended.with_guard(key) for key, run in self.runs.items() if not run.is_over]
