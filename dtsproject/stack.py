"""All of DTS on one machine: one foreground process that starts, watches and stops the others.

It has one thread, so that code may run between fork and exec, where the children are tied to it.
"""

import contextlib
import ctypes
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dtsproject.embedded import Cluster, EmbeddedError, lifeline

FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 0.5, 30.0
STEADY_SECONDS = 10.0  # who lived that long is started again without a long wait
HURRIED_SECONDS = 5.0
LONGEST_LINE = 64 * 1024

Show = Callable[[str, str], None]


class Program:
    """A program that is to run. It dies with this process, however that ends (on Linux)."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        stop_seconds: float,
    ) -> None:
        self.name = name
        self.command = command
        self.folder = folder
        self.environment = environment
        self.stop_seconds = stop_seconds
        self.process: subprocess.Popen[bytes] | None = None
        self.start_at = 0.0
        self._started_at = 0.0
        self._backoff = FIRST_BACKOFF_SECONDS

    def start(self) -> None:
        self._started_at = time.monotonic()
        self.process = self.launch()

    def launch(self) -> subprocess.Popen[bytes] | None:
        return subprocess.Popen(
            self.command,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for us: we stop the others in order
            preexec_fn=_killed_on_parent_exit() if lifeline.kernel_can_tell() else None,
        )

    def take_end(self) -> int | None:
        """The exit status, once, of a process that has ended; minus the signal's number."""
        if self.process is None or (status := self.process.poll()) is None:
            return None
        self.kill()  # what it left: the workers of a gunicorn that was killed hold the port
        self.process = None
        return status

    def back_off(self) -> float:
        """Puts the next start off, longer each time. Returns the seconds."""
        if time.monotonic() - self._started_at >= STEADY_SECONDS:
            self._backoff = FIRST_BACKOFF_SECONDS
        seconds, self._backoff = self._backoff, min(2 * self._backoff, LONGEST_BACKOFF_SECONDS)
        self.start_at = time.monotonic() + seconds
        return seconds

    def terminate(self) -> None:
        if self.process:
            self.process.terminate()

    def kill(self) -> None:
        """Ends the process and its children, but not what has a session of its own."""
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)


class Database(Program):
    """The embedded PostgreSQL. One that somebody else started is used, and left running."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__("database", [], folder=Path("/"), environment={}, stop_seconds=0)
        self.cluster = cluster

    def launch(self) -> subprocess.Popen[bytes] | None:
        return self.cluster.start_child()

    def terminate(self) -> None:
        if self.process:
            self.cluster.stop()

    def kill(self) -> None:
        """Never: a killed PostgreSQL has to recover; `terminate` waits for its fast shutdown."""


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


def _killed_on_parent_exit() -> Callable[[], None]:
    """A `preexec_fn` by which the child gets SIGKILL when this process ends.

    SIGINT, as for the database, would not do: a worker would drain, and wait for that database.
    """
    interrupted, prctl = lifeline.interrupt_on_parent_exit(), ctypes.CDLL(None).prctl

    def arm() -> None:
        interrupted()
        prctl(lifeline.PR_SET_PDEATHSIG, signal.SIGKILL)

    return arm


def _how(status: int) -> str:
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"ended with {status}"
