"""All of DTS on one machine: one foreground process that starts, watches and stops the others.

It has one thread, so that code may run between fork and exec, where the children are tied to it.
"""

import os
import selectors
import signal
import time
from collections.abc import Callable, Sequence

from dtsproject.embedded import EmbeddedError
from dtsproject.stack_programs import Program

HURRIED_SECONDS = 5.0
LONGEST_LINE = 64 * 1024

Show = Callable[[str, str], None]


class Stack:
    """Runs groups of programs until a signal; starts them in order, stops them in reverse."""

    def __init__(self, groups: Sequence[Sequence[Program]], show: Show) -> None:
        self.groups = groups
        self.show = show
        self.signals = 0
        self._selector = selectors.DefaultSelector()
        self._partial: dict[int, bytes] = {}

    @property
    def programs(self) -> list[Program]:
        return [program for group in self.groups for program in group]

    def run(self) -> None:
        """Returns when everything has stopped, which a first SIGINT or SIGTERM asks for.

        Until then whatever ends is started again. A second signal gives running tasks back at
        once instead of waiting for them.
        """
        self._hear_signals()
        try:
            while not self.signals:
                for program in self.programs:
                    self._keep_running(program)
                self._attend(self._until_next_start())
        finally:
            for group in reversed(self.groups):
                self._stop(group)

    def _hear_signals(self) -> None:
        read, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        self._selector.register(read, selectors.EVENT_READ)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._count_signal)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)

    def _count_signal(self, number: int, frame: object) -> None:
        self.signals += 1

    def _keep_running(self, program: Program) -> None:
        status = program.take_end()
        if status is not None:
            seconds = program.back_off()
            self.show(program.name, f"{_how(status)}; starting again in {seconds:g} s")
        elif program.process is None and program.start_at <= time.monotonic():
            self._start(program)

    def _start(self, program: Program) -> None:
        try:
            program.start()
        except (EmbeddedError, OSError) as error:
            seconds = program.back_off()
            self.show(program.name, f"{error}; trying again in {seconds:g} s")
            return
        if program.process is None:
            program.start_at = float("inf")
        elif program.process.stdout:
            self._selector.register(program.process.stdout, selectors.EVENT_READ, program.name)

    def _until_next_start(self) -> float | None:
        waiting = [program.start_at for program in self.programs if program.process is None]
        soonest = min(waiting, default=float("inf"))
        return None if soonest == float("inf") else max(0.0, soonest - time.monotonic())

    def _attend(self, seconds: float | None) -> None:
        """Passes output on; returns after `seconds` or when something has come."""
        for key, _ in self._selector.select(seconds):
            data = os.read(key.fd, LONGEST_LINE)
            if key.data is None:  # a signal's number; its handler has run
                continue
            *lines, rest = (self._partial.pop(key.fd, b"") + data).split(b"\n")
            if rest and (not data or len(rest) > LONGEST_LINE):
                lines, rest = [*lines, rest], b""
            for line in lines:
                self.show(key.data, line.decode(errors="replace"))
            if data:
                self._partial[key.fd] = rest
            else:
                self._selector.unregister(key.fileobj)
                os.close(key.fd)

    def _stop(self, group: Sequence[Program]) -> None:
        """SIGTERM, and SIGKILL for who has not ended within its time."""
        for program in group:
            program.terminate()
        deadline = time.monotonic() + max((p.stop_seconds for p in group), default=0)
        hurried = False
        while running := [p for p in group if p.process and p.take_end() is None]:
            if self.signals > 1 and not hurried:
                hurried = True
                deadline = min(deadline, time.monotonic() + HURRIED_SECONDS)
                for program in running:
                    program.terminate()
            if (left := deadline - time.monotonic()) <= 0:
                for program in running:
                    self.show(program.name, "did not stop in time: killed")
                    program.kill()
                left = 1.0
            self._attend(left)
        self._attend(0)


def _how(status: int) -> str:
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"ended with {status}"
