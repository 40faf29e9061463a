"""Python functions run in the agent itself, one at a time: for trusted, short ones.

No process is started, so a million of them are cheap; and none can be killed: timeouts and
cancels do not reach a function that runs. Shell tasks go through the guard as ever.
"""

import time

from jobs.specs import Claimed
from jobs.states import Kind
from workers import executor
from workers.guard_wire import boottime
from workers.runner import Runner

# After so long, what has ended is reported, though more is in hand.
REPORT_SECONDS = 0.01


class InlineRunner(Runner):
    def _fill_slots(self) -> None:
        """Leaves functions in hand, for `work`."""
        while self.in_hand and self.in_hand[0].kind != Kind.PYTHON and self.running < self.slots:
            self._start(self.in_hand.popleft())

    def _wake(self) -> None:
        """The runner's thread, which reads pipes, is needed for processes only."""
        if self.running:
            super()._wake()

    def work(self) -> int:
        """Runs functions in hand for a short while; returns how many."""
        began_at = now = time.perf_counter()
        ran = 0
        while now - began_at < REPORT_SECONDS and (task := self._next()):
            if boottime() < self.lease_until:
                ending = executor.call(task)
            else:
                ending = executor.unstarted(task, "lease_lost")
            self.ended.append(ending)
            ran += 1
            now = time.perf_counter()
        if ran:
            self.note_ends(ran)
        return ran

    def _next(self) -> Claimed | None:
        with self.lock:
            if not self.in_hand or self.in_hand[0].kind != Kind.PYTHON:
                return None
            task = self.in_hand.popleft()
            self._fill_slots()
            return task
