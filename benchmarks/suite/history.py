"""History: whether a million finished tasks slow down those to come."""

from benchmarks.bench import Bench, Figures, say, values
from benchmarks.drains import drain
from benchmarks.peers import Peer
from benchmarks.tables import Section, Table, middle, ratio

ROWS, QUICK_ROWS = 1_000_000, 100_000
SEED_TASKS = 10
METHOD = (
    "The drain again, in a database that holds {rows:,} finished tasks (vacuumed and analyzed) "
    "and, just before, in one that holds none. graphile-worker keeps no finished tasks."
)


def run(bench: Bench) -> Section:
    rows = bench.size(ROWS, QUICK_ROWS)
    keepers = [peer for peer in bench.peers if bench.info(peer)["finished"]]

    def measure(peer: Peer) -> Figures:
        return {
            "none": rate(bench, peer, peer.name),
            "history": rate(bench, peer, with_history(bench, peer, rows)),
        }

    rounds = bench.peers_in_turns("history", measure, peers=keepers)
    table = Table(["peer", "with none tasks/s", f"with {rows:,} tasks/s", "of that with none"])
    for peer in keepers:
        none, history = (values(rounds, peer.name, name) for name in ("none", "history"))
        table.rows.append([peer.title, middle(none), middle(history), ratio(history, none)])
    return Section("history", "History", METHOD.format(rows=rows), [table])


def rate(bench: Bench, peer: Peer, template: str) -> float:
    name, tasks = bench.database.create("run", template), bench.size(peer.tasks)
    bench.submit(peer, name, "bulk", tasks, "noop")
    return drain(bench, peer, name, tasks).rate


def with_history(bench: Bench, peer: Peer, rows: int) -> str:
    """The name of a database with so many finished tasks, made on the first call."""
    name = f"{peer.name}_history"
    if bench.database.has(name):
        return name
    say(f"history {peer.name}: making {rows:,} finished tasks")
    run = bench.fresh(peer)
    bench.submit(peer, run, "bulk", SEED_TASKS, "noop")
    drain(bench, peer, run, SEED_TASKS)
    with bench.database.connect(run) as connection:
        connection.execute(bench.info(peer)["finished"].replace("1000000", str(rows)))
        connection.execute("VACUUM ANALYZE")
    return bench.database.create(name, template=run)
