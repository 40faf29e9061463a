"""WAL: bytes of write-ahead log that a task costs, from submit to done."""

from benchmarks.bench import Bench, Figures, references, values
from benchmarks.database import wal_position
from benchmarks.drains import drain
from benchmarks.peers import Peer
from benchmarks.tables import Section, Table, middle, ratio

METHOD = (
    "After a CHECKPOINT, a tenth of the drain's tasks are submitted in bulk and drained by two "
    "workers; the bytes of WAL written until then, images of whole pages included, a task."
)


def run(bench: Bench) -> Section:
    def measure(peer: Peer) -> Figures:
        name, tasks = bench.fresh(peer), bench.size(peer.tasks // 10)
        with bench.database.connect(name) as connection:
            connection.execute("CHECKPOINT")
            before = wal_position(connection)
            bench.submit(peer, name, "bulk", tasks, "noop")
            submitted = wal_position(connection) - before
            done = drain(bench, peer, name, tasks, settle=False)
        return {"submit": submitted / tasks, "all": (submitted + done.wal_bytes) / done.tasks}

    rounds = bench.peers_in_turns("wal", measure)
    table = Table(["peer", "submit bytes", "submit to done bytes", "times bare SQL"])
    for peer in bench.peers:
        whole = values(rounds, peer.name, "all")
        submit = middle(values(rounds, peer.name, "submit"))
        times = ratio(whole, references(rounds, "all"))
        table.rows.append([peer.title, submit, middle(whole), times])
    return Section("wal", "Write-ahead log a task", METHOD, [table])
