"""Several worker processes under one: `run_worker --processes N`."""

import signal
import subprocess
import time
from collections.abc import Mapping, Sequence

import structlog

from dtsproject.embedded.lifeline import signal_on_parent_exit
from dtsproject.loop import Loop, stop_on_signals

log = structlog.get_logger(__name__)

REFUSED = 2
RESTART_SECONDS = 1.0


class Sibling:
    """A worker process, and what it was told."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        self.command = command
        self.process: subprocess.Popen[bytes] | None = None
        self.starts = 0
        self.start_at = 0.0
        self.signalled = 0

    def start(self) -> None:
        self.starts += 1
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the parent, which passes it on
            # Its guard then kills what it ran, as whenever a worker is killed.
            preexec_fn=signal_on_parent_exit(signal.SIGKILL),
        )


class Siblings(Loop):
    """Starts a process for each command, and again whichever dies; `run` returns after the last.

    The first SIGTERM or SIGINT is passed on as SIGTERM and drains all, a further one makes them
    give back what they run. One that ends well was drained by an operator and stays away. One that
    is refused at its first start ends all: `refused` is then true. At a later start it is tried
    again, since the guard of its killed predecessor may still be busy.
    """

    def __init__(self, commands: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.siblings = [Sibling(name, command) for name, command in commands.items()]
        self.asked = 0
        self.refused = False

    def run(self, *, once: bool = False) -> None:
        stop_on_signals(self.drain, self.drain)
        signal.signal(signal.SIGCHLD, lambda number, frame: self.wake())
        super().run(once=once)

    def drain(self) -> None:
        self.asked += 1
        self.wake()

    def tick(self) -> int:
        for sibling in list(self.siblings):
            if sibling.process is not None:
                self._look_after(sibling, sibling.process)
            elif self.asked:
                self.siblings.remove(sibling)
            elif sibling.start_at <= time.monotonic():
                sibling.start()
        if not self.siblings:
            self.stop()
        return 0

    def _look_after(self, sibling: Sibling, process: subprocess.Popen[bytes]) -> None:
        status = process.poll()
        if status is None:
            if sibling.signalled < self.asked:  # one a round: two at once may arrive as one
                sibling.signalled += 1
                process.terminate()
            return
        sibling.process = None
        if status == REFUSED and sibling.starts == 1:
            self.refused = True
            self.drain()
        if status == 0 or self.asked:
            self.siblings.remove(sibling)
            return
        log.warning("worker_died", worker=sibling.name, status=status)
        sibling.start_at = time.monotonic() + RESTART_SECONDS
