"""The processes of a run: each leads a group of its own, and no group outlives the run."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.errors import PeerFailed
from benchmarks.peers import ROOT
from dtsproject.embedded import lifeline

# Its settings file is in the project's folder; workers in it are DTS's own defaults.
GUNICORN = [
    *(sys.executable, "-m", "gunicorn", "--config", str(ROOT / "gunicorn.conf.py")),
    *("--chdir", str(ROOT), "--access-logfile", "/dev/null"),
]
STOP_SECONDS = 5.0
SHOWN_OF_LOG = 300


class Processes:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started = 0
        self._alive: list[subprocess.Popen[str]] = []

    def start(
        self, command: Sequence[str], environment: Mapping[str, str], *, piped: bool = False
    ) -> subprocess.Popen[str]:
        """Starts the command; what it prints goes to a log of its own, or into a pipe."""
        tied = lifeline.signal_on_parent_exit(signal.SIGINT)
        self._started += 1
        with self.log_of(self._started).open("wb") as log:
            process = subprocess.Popen(
                command,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else log,
                stderr=log,
                text=True,
                start_new_session=True,
                preexec_fn=tied,
            )
        self._alive.append(process)
        return process

    def run(
        self, command: Sequence[str], environment: Mapping[str, str], *, seconds: float = 600
    ) -> str:
        """What the command prints. Raises PeerFailed if it fails or takes longer than `seconds`."""
        process = self.start(command, environment, piped=True)
        try:
            printed, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise PeerFailed(f"took more than {seconds:g} s") from None
        finally:
            self.stop([process])
        if process.returncode:
            raise PeerFailed(f"ended with {process.returncode}: {self.last_words()}")
        return printed

    def stop(self, processes: Sequence[subprocess.Popen[str]]) -> None:
        """SIGTERM to each; after STOP_SECONDS SIGKILL to what is left of its group."""
        for process in processes:
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if process in self._alive:
                self._alive.remove(process)

    @contextlib.contextmanager
    def running(
        self, commands: Sequence[Sequence[str]], environment: Mapping[str, str]
    ) -> Iterator[list[subprocess.Popen[str]]]:
        """All these commands, until the end of the block."""
        started: list[subprocess.Popen[str]] = []
        try:
            for command in commands:
                started.append(self.start(command, environment))
            yield started
        finally:
            self.stop(started)

    def close(self) -> None:
        self.stop(list(self._alive))

    def log_of(self, number: int) -> Path:
        return self.folder / f"{number}.log"

    def last_words(self) -> str:
        """The end of what the process started last wrote to its log."""
        text = self.log_of(self._started).read_text(errors="replace")
        return " ".join(text[-SHOWN_OF_LOG:].split())
