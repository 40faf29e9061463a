"""One drain: tasks that are all there before the workers start, until nothing is left."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg

from benchmarks.bench import Bench
from benchmarks.database import wal_position
from benchmarks.errors import PeerFailed
from benchmarks.peers import Peer

POLL_SECONDS = 0.01
START_SECONDS = 60.0
# A slower drain is cut here, and its rate is what was done by then.
LONGEST_SECONDS, LONGEST_QUICK_SECONDS = 120.0, 30.0
WORKERS = 2


@dataclass(frozen=True)
class Drain:
    """`seconds`: from the first task's start until all ran and the peer's tables say so too."""

    tasks: int
    seconds: float
    wal_bytes: int
    cut: bool

    @property
    def rate(self) -> float:
        return self.tasks / max(self.seconds, 1e-6)


def bulk_and_drain(bench: Bench, peer: Peer, tasks: int, kind: str = "noop") -> Drain:
    """A drain of `tasks` tasks in a fresh database."""
    name = bench.fresh(peer)
    bench.submit(peer, name, "bulk", tasks, kind)
    return drain(bench, peer, name, tasks, profile="shell" if kind == "shell" else "best")


def drain(
    bench: Bench,
    peer: Peer,
    name: str,
    tasks: int,
    *,
    profile: str = "best",
    settle: bool = True,
    meanwhile: Callable[[list], object] = lambda workers: None,
) -> Drain:
    """Lets WORKERS workers run the `tasks` tasks that wait in the database `name`.

    `settle`: VACUUM, ANALYZE and CHECKPOINT first. `meanwhile` is called with the workers again
    and again. Raises PeerFailed if no task runs.
    """
    pending = bench.info(peer)["pending"]
    with bench.database.connect(name) as connection:
        if settle:
            connection.execute("VACUUM ANALYZE")
            connection.execute("CHECKPOINT")
        bench.marks.clear()
        before = wal_position(connection)
        with bench.workers(peer, name, profile, WORKERS) as workers:
            began_at = _first_start(bench, workers)
            give_up_at = began_at + (LONGEST_QUICK_SECONDS if bench.quick else LONGEST_SECONDS)

            def over() -> bool:
                # The peer's tables are asked only when all ran: asking costs it time.
                return bench.marks.count() >= tasks and not _any(connection, pending)

            meanwhile(workers)
            while not (done := over()) and time.time() < give_up_at:
                time.sleep(POLL_SECONDS)
                meanwhile(workers)
            ended_at = time.time()
        ran = tasks if done else min(tasks, bench.marks.count())
        wal_bytes = wal_position(connection) - before
    return Drain(ran, ended_at - began_at, wal_bytes, cut=not done)


def pace(bench: Bench, peer: Peer, name: str, seconds: float, step: float = 0.02) -> None:
    """Submits a task every `step` seconds to workers that run. Raises PeerFailed if they do not.

    Returns when all have run: marks are of these tasks alone.
    """
    bench.marks.clear()
    bench.call(peer, name, "pace", seconds, step)
    tasks, give_up_at = int(seconds / step) - 1, time.time() + START_SECONDS
    while bench.marks.count() < tasks:
        if time.time() > give_up_at:
            raise PeerFailed(f"{bench.marks.count()} of {tasks} tasks ran in {START_SECONDS:g} s")
        time.sleep(POLL_SECONDS)


def _first_start(bench: Bench, workers: list) -> float:
    """When the first task started; process start is not counted."""
    give_up_at = time.time() + START_SECONDS
    while (first_at := bench.marks.first_at()) is None:
        if time.time() > give_up_at or all(worker.poll() is not None for worker in workers):
            raise PeerFailed(f"no task ran: {bench.processes.last_words()}")
        time.sleep(POLL_SECONDS)
    return first_at


def _any(connection: psycopg.Connection[Any], question: str) -> bool:
    row = connection.execute(question).fetchone()
    return bool(row and row[0])
