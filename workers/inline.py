"""Python functions run in the agent itself, one at a time: for trusted, short ones.

No process is started, so a million of them are cheap; and none can be killed: timeouts and
cancels do not reach a function that runs. Shell tasks go through the guard as ever.
"""

import time

from jobs.specs import Claimed, Ending
from jobs.states import Kind
from workers import executor
from workers.guard_wire import boottime
from workers.runner import Runner

# After so long, what has ended is reported, though more is in hand.
REPORT_SECONDS = 0.01


class InlineRunner(Runner):
    def _fill_slots(self) -> None:
        """Leaves functions in hand, for `work`."""
        while self.in_hand and self.in_hand[0].kind != Kind.PYTHON and self._fits(self.in_hand[0]):
            self._start(self.in_hand.popleft())

    def _start(self, task: Claimed) -> None:
        super()._start(task)
        super()._wake()

    def _wake(self) -> None:
        """The runner's thread, which reads pipes, is needed for processes only."""

    def work(self) -> int:
        """Runs functions in hand for a short while; returns how many."""
        began_at = now = time.perf_counter()
        ran = 0
        while now - began_at < REPORT_SECONDS and (task := self._next()):
            if boottime() < self.lease_until:
                ending = executor.call(task)
            else:
                ending = executor.unstarted(task, "lease_lost")
            self._end(task, ending)
            ran += 1
            now = time.perf_counter()
        if ran:
            self.note_ends(ran)
        return ran

    def _next(self) -> Claimed | None:
        with self.lock:
            task = self.in_hand[0] if self.in_hand else None
            if task is None or task.kind != Kind.PYTHON or not self._fits(task):
                return None
            self.in_hand.popleft()
            self.busy_slots += task.slots
            self._fill_slots()
            return task

    def _end(self, task: Claimed, ending: Ending) -> None:
        with self.lock:
            self.ended.append(ending)
            self.busy_slots -= task.slots
            self._fill_slots()
