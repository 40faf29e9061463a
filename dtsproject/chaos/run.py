"""A chaos run from its first process to its history."""

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
from django.conf import settings
from django.core.management import get_commands

from dtsproject.chaos import harvest
from dtsproject.chaos.client import Clients, Http
from dtsproject.chaos.faults import Injector
from dtsproject.chaos.fleet import Fleet
from dtsproject.chaos.history import History, lives, now
from dtsproject.chaos.proxy import Proxy
from dtsproject.chaos.schedule import WORKERS, schedule
from dtsproject.chaos.timetable import Timetable
from dtsproject.chaos.workload import SCARCE, SCARCE_AT_ONCE, plan
from dtsproject.embedded import Cluster

START_SECONDS = 120
# After the last fault leases lapse, backoffs end and what is queued still runs, however much that
# is: only when nothing has ended for so long is nothing more waited for.
SETTLE_SECONDS = 60
TICK_SECONDS = 0.02
SMALL_DISK = "size=1m,mode=700"
CLONE_NEWNS = 0x00020000

Show = Callable[[str], None]


class Failed(Exception):
    """The run could not be made; it says nothing about DTS."""


def run(seconds: float, seed: int, folder: Path, show: Show) -> History:
    """Runs it all in `folder` and returns the history; nothing is left running.

    `show` is told, now and then, what goes on. Raises Failed, EmbeddedError, OSError.
    """
    history = History()
    with database(folder / "postgres") as cluster, wired(folder, cluster, seed) as (proxy, url):
        fleet = Fleet(folder, url, uuid.uuid4().hex, history)
        with small_disks(fleet):
            try:
                break_and_heal(fleet, cluster, proxy, seconds, seed, show)
            finally:
                fleet.stop()
                find_survivors(fleet, history)
        harvest.gather(cluster.url(), history)
        audit(cluster.url(), history)
    history.events += lives(fleet.stamps)
    return history


def break_and_heal(
    fleet: Fleet, cluster: Cluster, proxy: Proxy, seconds: float, seed: int, show: Show
) -> None:
    history = fleet.history
    start(fleet, show)
    timetable = Timetable(fleet.url, seed, history)
    timetable.start()
    began_at, began = time.monotonic(), now()
    clients = Clients(fleet.url, plan(seed, seconds), began_at, history)
    injector = Injector(schedule(seed, seconds), fleet, cluster, proxy)
    clients.start()
    watch = harvest.Watch(cluster.url())
    watch.start()
    try:
        while (elapsed := time.monotonic() - began_at) < seconds:
            injector.step(elapsed)
            fleet.keep_running()
            show(f"{elapsed:.0f} of {seconds:.0f} s: {injector.done} faults, {clients}, {watch}")
            time.sleep(TICK_SECONDS)
    finally:
        injector.heal()
    healed_at = time.monotonic()
    stop_firing(fleet, cluster, timetable, show)
    wait_for_the_end(fleet, cluster, clients, lambda: show(f"healed: {clients}, {watch}"))
    clients.stop()
    settled = round(time.monotonic() - healed_at, 2)
    history.add("run", at=began, seed=seed, seconds=seconds, settled_seconds=settled)


def stop_firing(fleet: Fleet, cluster: Cluster, timetable: Timetable, show: Show) -> None:
    """Pauses the schedules, once no time of theirs is left undone, or nobody does it."""
    give_up_at = time.monotonic() + SETTLE_SECONDS
    while harvest.is_behind(cluster.url()) and time.monotonic() < give_up_at:
        fleet.keep_running()
        show("healed: schedules are behind")
        time.sleep(10 * TICK_SECONDS)
    while not timetable.stop() and time.monotonic() < give_up_at:
        fleet.keep_running()


def wait_for_the_end(
    fleet: Fleet, cluster: Cluster, clients: Clients, show: Callable[[], None]
) -> None:
    """Returns when all has been answered and has ended, or nothing more does."""
    ended, ended_at = 0, time.monotonic()
    while time.monotonic() - ended_at < SETTLE_SECONDS:
        fleet.keep_running()
        show()
        before, (ended, live) = ended, harvest.ended_and_live(cluster.url())
        if clients.all_answered() and not live:
            break
        if ended > before:
            ended_at = time.monotonic()
        time.sleep(10 * TICK_SECONDS)


def start(fleet: Fleet, show: Show) -> None:
    """Returns when the API is ready and each worker is there. Raises Failed."""
    deadline = time.monotonic() + START_SECONDS
    http = Http(fleet.url)
    while True:
        fleet.keep_running()
        show("starting")
        with contextlib.suppress(OSError):
            present = http.ask("/api/v1/workers", seconds=2)
            if present[0] == 200 and len(present[1]["results"]) == len(WORKERS):
                return
        if time.monotonic() > deadline:
            raise Failed(f"DTS did not start within {START_SECONDS} s; its logs: {fleet.folder}")
        time.sleep(10 * TICK_SECONDS)


@contextlib.contextmanager
def database(folder: Path) -> Iterator[Cluster]:
    """A PostgreSQL of the run's own, migrated, which notes each change of a task's state."""
    cluster = Cluster(folder)
    try:
        cluster.start_child()
        manage("migrate", cluster.url())
        manage(f"limit set {SCARCE} --max-running {SCARCE_AT_ONCE}", cluster.url())
        harvest.note_moves(cluster.url())
        yield cluster
    finally:
        cluster.stop()


@contextlib.contextmanager
def wired(folder: Path, cluster: Cluster, seed: int) -> Iterator[tuple[Proxy, str]]:
    """The proxy before the database, and the URL that leads through it."""
    wire = Path(tempfile.mkdtemp(prefix="dts-wire-", dir="/tmp"))
    try:
        proxy = Proxy(wire, cluster.socket_dir, seed)
        proxy.start()
        yield proxy, f"{cluster.url().partition('?')[0]}?host={wire}"
    finally:
        shutil.rmtree(wire, ignore_errors=True)


@contextlib.contextmanager
def small_disks(fleet: Fleet) -> Iterator[None]:
    """Each worker's state folder on a disk of its own that can be filled, where root runs this.

    In a mount namespace of ours, so that nothing stays mounted, however we end.
    """
    folders = [fleet.state_folder(name) for name in WORKERS]
    if os.geteuid() == 0 and ctypes.CDLL(None).unshare(CLONE_NEWNS) == 0:
        private = ["mount", "--make-rprivate", "/"]
        tmpfs = ["mount", "-t", "tmpfs", "-o", SMALL_DISK, "dts-chaos"]
        fleet.small_disks = all(
            subprocess.run(command, check=False, capture_output=True).returncode == 0
            for command in [private, *([*tmpfs, str(folder)] for folder in folders)]
        )
    try:
        yield
    finally:
        for folder in folders:
            if folder.is_mount():
                subprocess.run(["umount", "-l", str(folder)], check=False)  # noqa: S607


def find_survivors(fleet: Fleet, history: History) -> None:
    """Notes, and ends, what the stack left running."""
    for process in fleet.survivors():
        with contextlib.suppress(psutil.Error):
            detail = f"{process.pid} {' '.join(process.cmdline())[:200]}"
            history.add("left", what="process", detail=detail)
            process.kill()


def audit(url: str, history: History) -> None:
    """DTS's own proof of its invariants, on this database."""
    if "audit" in get_commands():
        done = manage("audit", url, check=False)
        if done.returncode:
            history.add("left", what="audit", detail=(done.stdout + done.stderr)[-4000:])


def manage(command: str, url: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DATABASE_URL": url, "DTS_LOCAL": "1"}
    done = subprocess.run(
        [sys.executable, "manage.py", *command.split()],
        cwd=settings.BASE_DIR,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if check and done.returncode:
        raise Failed(f"manage.py {command} failed: {done.stderr[-2000:]}")
    return done
