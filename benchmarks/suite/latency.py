"""Latency: from submit to start, of a task that meets an idle worker."""

from benchmarks.bench import Bench, Figures, values
from benchmarks.drains import pace
from benchmarks.peers import Peer
from benchmarks.tables import Section, Table, middle, percentile, ratio

SECONDS, QUICK_SECONDS = 10, 3
METHOD = (
    "One worker, idle. A task every 20 ms for 10 s, each in a transaction of its own; its start "
    "is the mark it leaves, its submit the moment before the call that submits it. "
    "A second of the same, not counted, goes before. Median of the rounds."
)
PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def run(bench: Bench) -> Section:
    rounds = bench.peers_in_turns("latency", lambda peer: measure(bench, peer))
    table = Table(["peer", "p50 ms", "p95 ms", "p99 ms", "p50, times bare SQL"])
    for peer in bench.peers:
        found = [middle(values(rounds, peer.name, name)) for name in PERCENTILES]
        times = ratio(values(rounds, peer.name, "p50"), values(rounds, "ref", "p50"))
        table.rows.append([peer.title, *found, times])
    return Section("latency", "Latency of a task that meets an idle worker", METHOD, [table])


def measure(bench: Bench, peer: Peer) -> Figures:
    name = bench.fresh(peer)
    with bench.workers(peer, name, "best", 1):
        pace(bench, peer, name, 1)
        pace(bench, peer, name, QUICK_SECONDS if bench.quick else SECONDS)
        waits = bench.marks.waits_ms()
    return {name: percentile(waits, part) or 0.0 for name, part in PERCENTILES.items()}
