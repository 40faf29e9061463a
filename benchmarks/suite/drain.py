"""Drain: how many no-op functions a second two workers run."""

from benchmarks.bench import Bench, Figures, references, values
from benchmarks.drains import bulk_and_drain
from benchmarks.peers import Peer
from benchmarks.tables import Section, Table, middle, ratio

METHOD = (
    "All tasks (200,000; of the slow ones 20,000) are submitted, the database is vacuumed, "
    "analyzed and checkpointed, then two workers start. The clock runs from the first task's "
    "start until all have left their marks and the product's own tables show nothing waiting or "
    "running. DTS's figure includes its scheduler's step, pending to queued."
)


def run(bench: Bench) -> Section:
    def measure(peer: Peer) -> Figures:
        found = bulk_and_drain(bench, peer, bench.size(peer.tasks))
        return {"rate": found.rate, "wal": found.wal_bytes / max(found.tasks, 1)}

    rounds = bench.peers_in_turns("drain", measure)
    table = Table(["peer", "tasks/s", "of bare SQL", "slowest", "fastest", "WAL bytes a task"])
    for peer in bench.peers:
        rates = values(rounds, peer.name, "rate")
        known = [rate for rate in rates if rate is not None]
        table.rows.append(
            [
                peer.title,
                middle(rates),
                ratio(rates, references(rounds, "rate")),
                min(known, default=None),
                max(known, default=None),
                middle(values(rounds, peer.name, "wal")),
            ]
        )
    return Section("drain", "Drain of no-op functions, two workers", METHOD, [table])
