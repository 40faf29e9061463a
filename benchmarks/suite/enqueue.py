"""Enqueue: how many tasks a second one client submits."""

from benchmarks.bench import Bench, Figures, references, values
from benchmarks.peers import FAST, Peer
from benchmarks.tables import Section, Table, middle, ratio

BULK, SLOW_BULK, SINGLE = 100_000, 10_000, 2_000
METHOD = (
    "One process submits no-op tasks: in bulk 100,000 (the slow ones 10,000), 10,000 a call or "
    "job; and 2,000 one by one, each in a transaction of its own with its wake-up. "
    "The limits are COPY and a bare INSERT into the reference's narrow table. "
    "django-tasks-db has no bulk enqueue: it gets transactions of 1,000."
)


def run(bench: Bench) -> Section:
    def measure(peer: Peer) -> Figures:
        bulk = bench.size(BULK if peer.tasks == FAST else SLOW_BULK)
        return {
            "bulk": bench.submit(peer, bench.fresh(peer), "bulk", bulk, "noop"),
            "single": bench.submit(peer, bench.fresh(peer), "single", bench.size(SINGLE, 500)),
        }

    rounds = bench.peers_in_turns("enqueue", measure)
    head = ["peer", "bulk tasks/s", "of COPY", "single tasks/s", "of a bare INSERT"]
    table = Table(head)
    for peer in bench.peers:
        row: list[float | str | None] = [peer.title]
        for figure in ("bulk", "single"):
            found = values(rounds, peer.name, figure)
            row += [middle(found), ratio(found, references(rounds, figure))]
        table.rows.append(row)
    return Section("enqueue", "Enqueue, one client", METHOD, [table])
