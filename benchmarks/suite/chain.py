"""Dependencies: how fast a chain runs, each task after the one before, and wide fans beside it."""

import json
import sys
from functools import partial

from benchmarks.bench import Bench, Figures, values
from benchmarks.peers import DTS, ROOT
from benchmarks.tables import Section, Table, middle

LINKS, QUICK_LINKS = 1000, 50
SHAPES = ("chain", "fan")
METHOD = (
    "A job of {links} no-op functions. In the chain each depends on the one before, so nothing can "
    "be gathered: a link is a claim, a report, the telling of the next and its promotion. In the "
    "fan all but two are between a first and a last. Two workers run functions in their own "
    "process, beside one scheduler; from submit to the last end."
)


def run(bench: Bench) -> Section:
    links = bench.size(LINKS, QUICK_LINKS)
    measures = {shape: partial(measure, bench, shape, links) for shape in SHAPES}
    rounds = bench.in_turns("chain", measures)
    table = Table(["shape", "tasks/s"])
    for shape in SHAPES:
        table.rows.append([shape, middle(values(rounds, shape, "a second"))])
    return Section("chain", "Tasks that depend on each other", METHOD.format(links=links), [table])


def measure(bench: Bench, shape: str, links: int) -> Figures:
    environment = bench.django(bench.fresh(DTS))
    manage = [sys.executable, str(ROOT / "manage.py")]
    workers = [
        [*manage, "run_worker", "--name", f"bench-{n}", "--executor", "inline"] for n in range(2)
    ]
    probe = [sys.executable, "-m", "benchmarks.probes.chain", shape, str(links)]
    with bench.processes.running([[*manage, "run_scheduler"], *workers], environment):
        figures: Figures = json.loads(bench.processes.run(probe, environment))
    return figures
