"""Bloat: what dead rows cost, under a pinned snapshot and under steady churn."""

import contextlib
from collections.abc import Iterator

from benchmarks.bench import Bench, Figures, Rounds, values
from benchmarks.drains import WORKERS, drain, pace
from benchmarks.errors import PeerFailed
from benchmarks.peers import FAST, Peer
from benchmarks.tables import Section, Table, middle, percentile, ratio

DRAINS, QUICK_DRAINS = 10, 3
A_DRAIN, SLOW_A_DRAIN = 20_000, 1_000
BACKLOG = 5_000
METHOD = (
    "Pinned: somebody's open REPEATABLE READ transaction keeps every dead row; ten times 20,000 "
    "tasks (the slow ones 1,000) are submitted and drained by two workers in the same database. "
    "Churn: two workers, and a client that keeps about 5,000 tasks of ten priorities waiting and "
    "submits an urgent one every 100 ms (one round, {minutes:g} minutes). First and last are the "
    "first and the last minute, or third where the whole is shorter than three; the urgent wait is "
    "from submit to start."
)


def run(bench: Bench) -> Section:
    pinned = bench.peers_in_turns("pinned", lambda peer: measure_pinned(bench, peer))
    churn = bench.peers_in_turns("churn", lambda peer: measure_churn(bench, peer), rounds=1)
    tables = [
        compare(bench, pinned, "Drains under a pinned snapshot", {}),
        compare(
            bench,
            churn,
            "Steady churn",
            {"urgent p50 ms": "p50", "urgent p99 ms": "p99", "worst urgent ms": "max"},
        ),
    ]
    method = METHOD.format(minutes=bench.minutes)
    return Section("bloat", "Bloat", method, tables)


def compare(bench: Bench, rounds: Rounds, title: str, more: dict[str, str]) -> Table:
    table = Table(["peer", "first tasks/s", "last tasks/s", "last of first", *more], title=title)
    for peer in bench.peers:
        first, last = (values(rounds, peer.name, name) for name in ("first", "last"))
        waits = [middle(values(rounds, peer.name, name)) for name in more.values()]
        table.rows.append([peer.title, middle(first), middle(last), ratio(last, first), *waits])
    return table


def measure_pinned(bench: Bench, peer: Peer) -> Figures:
    name, rates = bench.fresh(peer), []
    tasks = bench.size(A_DRAIN if peer.tasks == FAST else SLOW_A_DRAIN)
    with pinned_snapshot(bench, name):
        for _ in range(QUICK_DRAINS if bench.quick else DRAINS):
            bench.submit(peer, name, "bulk", tasks, "noop")
            found = drain(bench, peer, name, tasks)
            rates.append(found.rate)
            if found.cut:
                break
    return {"first": rates[0], "last": rates[-1]}


@contextlib.contextmanager
def pinned_snapshot(bench: Bench, name: str) -> Iterator[None]:
    """Keeps every row that dies from now on from being removed."""
    with bench.database.connect(name) as connection:
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SELECT count(*) FROM pg_class")
        yield
        connection.execute("ROLLBACK")


def measure_churn(bench: Bench, peer: Peer) -> Figures:
    name, seconds = bench.fresh(peer), 60 * bench.minutes
    with bench.workers(peer, name, "best", WORKERS):
        pace(bench, peer, name, 1)
        bench.marks.clear()
        verb = peer.command("churn", seconds, bench.size(BACKLOG, BACKLOG))
        bench.processes.run(verb, bench.environment(name), seconds=seconds + 60)
        began_at, ended_at = (
            bench.marks.first_at(),
            max((s for s, _ in bench.marks.read()), default=0),
        )
        waits = bench.marks.waits_ms()
    if began_at is None or not waits:
        raise PeerFailed(f"no urgent task ran: {bench.processes.last_words()}")
    part = min(60.0, (ended_at - began_at) / 3)
    return {
        "first": bench.marks.rate(began_at, began_at + part),
        "last": bench.marks.rate(ended_at - part, ended_at),
        "p50": percentile(waits, 0.5) or 0.0,
        "p99": percentile(waits, 0.99) or 0.0,
        "max": max(waits),
    }
