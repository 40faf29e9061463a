"""How each kind of fault is done, and undone."""

import contextlib
import signal
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

import psutil
import psycopg

from dtsproject.chaos.fleet import Fleet, guard, libfaketime, signal_all, tree
from dtsproject.chaos.history import now
from dtsproject.chaos.proxy import Proxy
from dtsproject.chaos.schedule import Fault
from dtsproject.embedded import Cluster

Undo = Callable[[], object]

LOST_ANSWERS = 0.25
WIRE_DELAY_SECONDS = 0.1
WAL_DELAY_MICROSECONDS = 50_000
CLOCK_SHIFT = "+86400s"


class Skipped(Exception):
    """The fault cannot be injected here or now; the message says why."""


class Injector:
    """Begins and ends faults as their times come; all of it in the caller's thread."""

    def __init__(
        self,
        faults: Sequence[Fault],
        fleet: Fleet,
        cluster: Cluster,
        proxy: Proxy,
    ) -> None:
        self.planned = list(faults)
        self.running: list[tuple[float, Fault, Undo]] = []
        self.done = 0
        self.fleet, self.cluster, self.proxy = fleet, cluster, proxy
        self.history = fleet.history
        self.ways: dict[str, Callable[[Fault], Undo | None]] = {
            "worker killed": lambda f: killed(self._worker(f)[:1]),
            "worker stopped": lambda f: stopped(self._worker(f)[:1]),
            "guard killed": lambda f: killed(self._guard(f)[1:]),
            "guard stopped": lambda f: stopped(self._guard(f)[1:]),
            "warden killed": lambda f: killed(self._guard(f)[:1]),
            "guard and warden killed": lambda f: killed(self._guard(f)),
            "worker and guard killed": lambda f: killed(
                [*self._worker(f)[:1], *self._guard(f)[1:]]
            ),
            "machine frozen": lambda f: stopped(self._worker(f)),
            "wall clock jumped": self.jump_clock,
            "state folder full": self.fill_state_folder,
            "database restarted (immediate)": lambda f: self.stop_database(signal.SIGQUIT),
            "database restarted (fast)": lambda f: self.stop_database(signal.SIGINT),
            "database frozen": lambda f: stopped(self._database()),
            "WAL flush slow": lambda f: self.slow_wal(),
            "answers lost": lambda f: self._spoil("lost_answers", LOST_ANSWERS),
            "connections dropped": lambda f: self.drop_connections(),
            "wire slow": lambda f: self._spoil("delay_seconds", WIRE_DELAY_SECONDS),
        }

    def step(self, elapsed: float) -> None:
        """Ends and begins what is due `elapsed` seconds after the start."""
        for due, fault, undo in [it for it in self.running if it[0] <= elapsed]:
            self.running.remove((due, fault, undo))
            self._end(fault, undo)
        while self.planned and self.planned[0].at <= elapsed:
            self._begin(self.planned.pop(0), elapsed)

    def heal(self) -> None:
        """Ends whatever still lasts."""
        for _, fault, undo in self.running:
            self._end(fault, undo)
        self.running = []

    def _begin(self, fault: Fault, elapsed: float) -> None:
        began_at = now()
        try:
            undo = self._inject(fault)
        except Skipped as skipped:
            return self._note("fault_begin", fault, at=began_at, skipped=str(skipped))
        self.done += 1
        self._note("fault_begin", fault, at=began_at)
        if undo:
            self.running.append((elapsed + fault.seconds, fault, undo))
        else:
            self._note("fault_end", fault)

    def _inject(self, fault: Fault) -> Undo | None:
        if way := self.ways.get(fault.kind):
            return way(fault)
        processes = self._processes(fault)  # "<what> killed" or "<what> stopped"
        if fault.kind.endswith("stopped"):
            return stopped(processes)
        return killed(processes)

    def _end(self, fault: Fault, undo: Undo) -> None:
        undo()
        self._note("fault_end", fault)

    def _note(self, event: str, fault: Fault, **more: Any) -> None:
        self.history.add(event, fault=fault.number, kind=fault.kind, target=fault.target, **more)

    # -- whom it hits -------------------------------------------------------------------------

    def _processes(self, fault: Fault) -> list[psutil.Process]:
        found = tree(self.fleet.programs[fault.target])
        if not found:
            raise Skipped("it was not running")
        return found

    _worker = _processes  # the agent first, then its guard and the tasks

    def _guard(self, fault: Fault) -> list[psutil.Process]:
        """Warden and guard."""
        found = guard(self._processes(fault))
        if len(found) < 2:
            raise Skipped("it had no guard yet")
        return found

    def _database(self) -> list[psutil.Process]:
        """The postmaster first: stopped, it starts no further backend."""
        top = psutil.Process(self._postmaster().pid)
        return [top, *top.children()]

    def _postmaster(self) -> subprocess.Popen[bytes]:
        process = self.cluster._process
        if process is None or process.poll() is not None:
            raise Skipped("it was not running")
        return process

    # -- what takes more than a signal --------------------------------------------------------

    def stop_database(self, number: signal.Signals) -> Undo:
        """A shutdown in PostgreSQL's own way: SIGINT is fast, SIGQUIT immediate (no checkpoint)."""
        process = self._postmaster()
        process.send_signal(number)
        process.wait()
        return self.cluster.start_child

    def slow_wal(self) -> Undo:
        """Each flush of the WAL, so each commit, waits; PostgreSQL's own commit_delay does it."""
        self._configure(f"commit_delay = {WAL_DELAY_MICROSECONDS}", "commit_siblings = 0")
        return lambda: self._configure("commit_delay = 0")

    def _configure(self, *changes: str) -> None:
        try:
            with psycopg.connect(
                self.cluster.url(), autocommit=True, connect_timeout=3
            ) as database:
                for change in changes:
                    database.execute(f"ALTER SYSTEM SET {change}")
                database.execute("SELECT pg_reload_conf()")
        except psycopg.Error as error:
            raise Skipped(f"the database could not be asked: {error}") from error

    def drop_connections(self) -> Undo | None:
        self.proxy.drop()
        return None

    def _spoil(self, what: str, value: float) -> Undo:
        setattr(self.proxy, what, value)
        return lambda: setattr(self.proxy, what, 0.0)

    def jump_clock(self, fault: Fault) -> Undo:
        if not libfaketime():
            raise Skipped("there is no libfaketime")
        file = self.fleet.clock_file(fault.target)
        file.write_text(CLOCK_SHIFT)
        return lambda: file.write_text("+0")

    def fill_state_folder(self, fault: Fault) -> Undo:
        """Kills the worker, which then has to start on a full disk (a small tmpfs)."""
        if not self.fleet.small_disks:
            raise Skipped("a small disk could not be mounted; root may")
        folder = self.fleet.state_folder(fault.target)
        self._processes(fault)[0].kill()
        filler = folder / "filler"
        with contextlib.suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(b"\0" * 1024)
                file.flush()
        return lambda: filler.unlink(missing_ok=True)


def killed(processes: Sequence[psutil.Process]) -> Undo | None:
    """There is no way back."""
    signal_all(processes, signal.SIGKILL)
    return None


def stopped(processes: Sequence[psutil.Process]) -> Undo:
    signal_all(processes, signal.SIGSTOP)
    return lambda: signal_all(processes, signal.SIGCONT)
