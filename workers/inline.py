"""Python functions run in the agent itself, one at a time: for trusted, short ones.

No process is started, so a million of them are cheap; and none can be killed: timeouts and
cancels do not reach a function that runs. Shell tasks go through the guard as ever.
"""

import time

from jobs.states import Kind
from workers import executor
from workers.guard_wire import boottime
from workers.runner import Run, Runner

# After so long, what has ended is reported, though more is in hand.
REPORT_SECONDS = 0.01


class InlineRunner(Runner):
    def _fill_slots(self) -> None:
        """Leaves functions in hand, for `work`."""
        while self.in_hand and self.in_hand[0].task.kind != Kind.PYTHON:
            if self.running >= self.slots:
                return
            self.running += 1
            self._start(self.in_hand.popleft())

    def work(self) -> int:
        """Runs functions in hand for a short while; returns how many."""
        began_at = now = time.perf_counter()
        ran = 0
        while now - began_at < REPORT_SECONDS and (run := self._next()):
            if boottime() >= self.lease_until:
                run.ending = executor.unstarted(run.task, "lease_lost")
            else:
                run.ending = executor.call(run.task)
            ran += 1
            now = time.perf_counter()
        if ran:
            self.note_duration((now - began_at) / ran)
        return ran

    def _next(self) -> Run | None:
        with self.lock:
            self._fill_slots()
            if self.in_hand and self.in_hand[0].task.kind == Kind.PYTHON:
                return self.in_hand.popleft()
            return None
