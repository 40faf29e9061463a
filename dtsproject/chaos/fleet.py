"""The processes of a chaos run: real ones, started again whenever they end."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import psutil
from django.conf import settings

from dtsproject.chaos.history import History
from dtsproject.chaos.schedule import RECOVERIES, SCHEDULERS, WORKERS
from dtsproject.embedded import lifeline
from dtsproject.stack_programs import Program

HOST = "127.0.0.1"
SLOTS = 4
RESTART_SECONDS = 0.5
STOP_SECONDS = 20.0
# Short, so that much lapses in a minute; long enough for a busy machine of two cores.
LEASE_SECONDS, GRACE_SECONDS = 4.0, 0.5
SETTINGS = {
    "DTS_LEASE_SECONDS": str(LEASE_SECONDS),
    "DTS_HEARTBEAT_SECONDS": "0.5",
    "DTS_KILL_GRACE_SECONDS": str(GRACE_SECONDS),
    "DTS_RECOVERY_INTERVAL_SECONDS": "0.5",
    "DTS_BACKOFF_BASE_SECONDS": "0.2",
    "DTS_DRAIN_SECONDS": "5",
    "DTS_ANONYMOUS_ACCESS": "loopback",
    "DTS_LOCAL": "1",
    "DJANGO_SETTINGS_MODULE": "dtsproject.settings",
    "PYTHONUNBUFFERED": "1",
    "WEB_CONCURRENCY": "2",
}


class Logged(Program):
    """A program whose output goes to a file, which nobody has to read for it to go on."""

    log: Path

    def launch(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=lifeline.signal_on_parent_exit(signal.SIGKILL),
            )


class Fleet:
    """All programs by name. Each worker has a state folder of its own, as on its own machine."""

    def __init__(self, folder: Path, database_url: str, mark: str, history: History) -> None:
        self.folder = folder
        self.history = history
        self.mark = mark
        self.stamps = folder / "stamps"
        self.port = free_port()
        self.small_disks = False  # whether each worker's state folder is one, which can be full
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("DTS_", "ORCH_"))},
            **SETTINGS,
            "DATABASE_URL": database_url,
            "DTS_STATE_DIR": str(folder / "state"),
            "ORCH_HOST": HOST,
            "ORCH_PORT": str(self.port),
            "CHAOS_RUN": mark,
        }
        self.programs: dict[str, Program] = {
            "api": self._program("api", "-m", "gunicorn", "-c", "gunicorn.conf.py")
        }
        for name in (*SCHEDULERS, *RECOVERIES):
            self.programs[name] = self._program(name, "manage.py", f"run_{name[:-2]}")
        for name in WORKERS:
            self.programs[name] = self._worker(name)

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def _program(self, name: str, *arguments: str, **environment: str) -> Program:
        program = Logged(
            name,
            [sys.executable, *arguments],
            folder=settings.BASE_DIR,
            environment={**self.environment, **environment},
            stop_seconds=STOP_SECONDS,
        )
        program.log = self.folder / f"{name}.log"
        return program

    def _worker(self, name: str) -> Program:
        self.state_folder(name).mkdir(mode=0o700)
        environment = {
            "DTS_STATE_DIR": str(self.state_folder(name)),
            "CHAOS_WORKER": name,
            "CHAOS_STAMPS": str(self.stamps),
            **faked_clock(self.clock_file(name)),
        }
        arguments = ["run_worker", "--name", name, "--slots", str(SLOTS)]
        return self._program(name, "manage.py", *arguments, **environment)

    def state_folder(self, worker: str) -> Path:
        return self.folder / f"{worker}.state"

    def clock_file(self, worker: str) -> Path:
        return self.folder / f"{worker}.clock"

    def keep_running(self) -> None:
        """Starts what is not running, a moment after it ended."""
        for name, program in self.programs.items():
            status = program.take_end()
            if status is not None:
                self.history.add("exited", program=name, status=status)
                program.start_at = time.monotonic() + RESTART_SECONDS
            elif program.process is None and program.start_at <= time.monotonic():
                program.start()

    def stop(self) -> None:
        """SIGTERM to all, workers first, since they still have something to say."""
        signal_all(guards(self.folder), signal.SIGCONT)
        for name in (*WORKERS, *(set(self.programs) - set(WORKERS))):
            self.programs[name].terminate()
            if name not in WORKERS[:-1]:
                self._wait(WORKERS if name in WORKERS else (name,))
        deadline = time.monotonic() + STOP_SECONDS
        while guards(self.folder) and time.monotonic() < deadline:
            time.sleep(0.02)

    def _wait(self, names: tuple[str, ...]) -> None:
        deadline = time.monotonic() + STOP_SECONDS
        while running := [n for n in names if self.programs[n].process]:
            for name in running:
                if time.monotonic() > deadline:
                    self.history.add("left", what="program", detail=f"{name} did not stop")
                    self.programs[name].kill()
                self.programs[name].take_end()
            time.sleep(0.02)

    def survivors(self) -> list[psutil.Process]:
        """All that carries this run's mark in its environment, zombies left out; and guards, whose
        environment is their own."""
        marked = [it for it in psutil.process_iter() if it.pid != os.getpid() and self._marked(it)]
        return [*marked, *guards(self.folder)]

    def _marked(self, process: psutil.Process) -> bool:
        try:
            dead = process.status() == psutil.STATUS_ZOMBIE
            return not dead and process.environ().get("CHAOS_RUN") == self.mark
        except psutil.Error:
            return False


def tree(program: Program) -> list[psutil.Process]:
    """The program and all its descendants, parents first; nothing if it does not run."""
    try:
        top = psutil.Process(program.process.pid) if program.process else None
        return [top, *top.children(recursive=True)] if top else []
    except psutil.NoSuchProcess:
        return []


def guard(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Of a worker's tree: the warden (the agent's child) and the guard (the warden's), so far."""
    found, parent = [], processes[0].pid
    for process in processes:
        if _is_guard(process) and process.ppid() == parent:
            found.append(process)
            parent = process.pid
    return found[:2]


def guards(folder: Path) -> list[psutil.Process]:
    """Guards and wardens of the workers with their state under `folder`, be these gone or not:
    each has its worker's lock file open."""
    return [it for it in psutil.process_iter() if _has_lock(it, folder)]


def signal_all(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    """psutil makes sure that the pid is not another process's by now."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _has_lock(process: psutil.Process, folder: Path) -> bool:
    try:
        files = [Path(file.path) for file in process.open_files()]
    except psutil.Error:
        return False
    return any(file.suffix == ".lock" and file.is_relative_to(folder) for file in files)


def _is_guard(process: psutil.Process) -> bool:
    try:
        return any(part.endswith("guard.py") for part in process.cmdline())
    except psutil.Error:
        return False


def libfaketime() -> Path | None:
    """The library that shifts a process's wall clock: of the wheel libfaketime, or of Debian."""
    spec = find_spec("libfaketime")
    if spec and spec.origin:
        for found in Path(spec.origin).parent.rglob("libfaketime.so.1"):
            return found
    return next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


def faked_clock(file: Path) -> Mapping[str, str]:
    """Variables by which a program's wall clock is shifted by what `file` says, now `+0`.

    Its monotonic clocks stay as they are: those of a real machine do when its date is set.
    """
    library = libfaketime()
    if not library:
        return {}
    file.write_text("+0")
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }


def free_port() -> int:
    with socket.create_server((HOST, 0)) as probe:
        return int(probe.getsockname()[1])
