"""Shell: how many commands a second two workers run."""

import sys

from benchmarks.bench import Bench, Figures, say, values
from benchmarks.drains import WORKERS, bulk_and_drain
from benchmarks.peers import ROOT, Peer
from benchmarks.tables import Section, Table, middle, ratio

TASKS = 2_000
METHOD = (
    "2,000 tasks, each `sh -c true` with its output captured, two workers, each with as many slots "
    "as there are cores (pgqueuer and graphile-worker 8 at once, django-tasks-db 1). The limit is "
    "a bare loop in two processes that runs the same command with subprocess.run and captures its "
    "output. DTS's tasks are children of its guard, which proves their whole process tree dead."
)
LOOP = "bare loop, two processes"


def run(bench: Bench) -> Section:
    tasks = bench.size(TASKS, 500)
    loops: list[float | None] = []

    def measure(peer: Peer) -> Figures:
        if peer is bench.peers[0]:
            loops.append(spawn_loops(bench, tasks))
            say(f"shell {LOOP}: {loops[-1]:,.4g} a second")
        return {"rate": bulk_and_drain(bench, peer, tasks, "shell").rate}

    rounds = bench.peers_in_turns("shell", measure)
    table = Table(["peer", "commands/s", "of the bare loop"], [[LOOP, middle(loops), 1.0]])
    for peer in bench.peers:
        rates = values(rounds, peer.name, "rate")
        table.rows.append([peer.title, middle(rates), ratio(rates, loops)])
    return Section("shell", "Shell commands, two workers", METHOD, [table])


def spawn_loops(bench: Bench, commands: int) -> float:
    """Commands a second of WORKERS bare loops."""
    program = str(ROOT / "benchmarks" / "probes" / "spawn_loop.py")
    loop = [sys.executable, "-P", program, str(commands // WORKERS)]
    bench.marks.clear()
    with bench.processes.running([loop] * WORKERS, bench.environment("none")) as started:
        for process in started:
            process.wait()
    ends = sorted(end for end, _ in bench.marks.read())
    return len(ends) / (ends[-1] - ends[0])
