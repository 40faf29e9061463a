"""The programs of a stack: how each is started, tied to this process, and ended."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from dtsproject.embedded import Cluster, lifeline

FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 0.5, 30.0
STEADY_SECONDS = 10.0  # who lived that long is started again without a long wait


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
            preexec_fn=lifeline.signal_on_parent_exit(signal.SIGKILL),
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
