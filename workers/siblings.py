"""Several worker processes under one: `run_worker --processes N`."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog
from django.conf import settings

from dtsproject.embedded.lifeline import signal_on_parent_exit
from dtsproject.loop import Loop, stop_on_signals

log = structlog.get_logger(__name__)

REFUSED = 2
RESTART_SECONDS = 1.0
# Longer than any round or start of a worker that is well.
FRESH_SECONDS = 60.0


class Sibling:
    """A worker process, what it was told, and the liveness file of its own that it touches."""

    def __init__(self, name: str, command: Sequence[str]) -> None:
        self.name = name
        self.command = command
        self.process: subprocess.Popen[bytes] | None = None
        self.starts = 0
        self.start_at = 0.0
        self.signalled = 0
        shared = settings.LIVENESS_FILE
        self.liveness_file = Path(f"{shared}.{name}") if shared else None

    def start(self) -> None:
        self.starts += 1
        environment = dict(os.environ)
        if self.liveness_file:
            self.liveness_file.touch()
            environment["DTS_LIVENESS_FILE"] = str(self.liveness_file)
        self.process = subprocess.Popen(
            self.command,
            env=environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the parent, which passes it on
            # Its guard then kills what it ran, as whenever a worker is killed.
            preexec_fn=signal_on_parent_exit(signal.SIGKILL),
        )

    def goes_round(self) -> bool:
        """Whether it touched its file of late; so it seems where there is none, or not yet."""
        if not self.starts or not self.liveness_file:
            return True
        try:
            return time.time() - self.liveness_file.stat().st_mtime < FRESH_SECONDS
        except FileNotFoundError:  # swept away; it will touch it again
            return False


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

    def show_life(self) -> None:
        """The probe looks at one file: it stays fresh only while each process goes round."""
        if all(sibling.goes_round() for sibling in self.siblings):
            super().show_life()

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
