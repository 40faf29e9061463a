"""Promotion: how fast the scheduler queues tasks, with a long backlog, and with limits on."""

import json
import sys
from functools import partial

from benchmarks.bench import Bench, Figures, values
from benchmarks.peers import DTS
from benchmarks.tables import Section, Table, middle, ratio

TASKS, QUICK_TASKS = 1_000_000, 50_000
ROUNDS, QUICK_ROUNDS = 50, 10
SHAPES = {
    "plain": "nothing else waits",
    "backlog": "half not due, or blocked",
    "limits": "that, and 1,000 keys with limits",
}
METHOD = (
    "The scheduler's own round, batches of up to 1,000, {rounds} of them; what it queued is "
    "claimed and done before the next, which is not timed. plain: {few:,} tasks wait. backlog: of "
    "{tasks:,} tasks half wait, a quarter is not due for a day, a quarter depends on others. "
    "limits: so, and each task has one of 1,000 concurrency keys, scattered, each with a limit of "
    "two at once."
)


def run(bench: Bench) -> Section:
    tasks, rounds = bench.size(TASKS, QUICK_TASKS), bench.size(ROUNDS, QUICK_ROUNDS)
    few = 2_000 * rounds
    sizes = {"plain": few, "backlog": tasks, "limits": tasks}
    measures = {shape: partial(measure, bench, shape, sizes[shape], rounds) for shape in SHAPES}
    found = bench.in_turns("promote", measures)
    plain = values(found, "plain", "a second")
    table = Table(["queue", "tasks", "tasks/s", "of plain", "in a line at the end"])
    for shape, meaning in SHAPES.items():
        rates, lined = values(found, shape, "a second"), values(found, shape, "in a line")
        of_plain = ratio(rates, plain)
        name = f"{shape}: {meaning}"
        table.rows.append([name, sizes[shape], middle(rates), of_plain, middle(lined)])
    method = METHOD.format(rounds=rounds, few=few, tasks=tasks)
    return Section("promote", "Promotion under limits", method, [table])


def measure(bench: Bench, shape: str, tasks: int, rounds: int) -> Figures:
    environment = bench.django(bench.fresh(DTS))
    probe = [sys.executable, "-m", "benchmarks.probes.promote", shape, str(tasks), str(rounds)]
    figures: Figures = json.loads(bench.processes.run(probe, environment, seconds=1800))
    return figures
