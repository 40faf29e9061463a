"""Policy: the mean completion time of a mixed workload, by priority and by age alone."""

import json
import sys
import time
from functools import partial

from benchmarks.bench import Bench, Figures, values
from benchmarks.errors import PeerFailed
from benchmarks.peers import DTS, ROOT
from benchmarks.tables import Section, Table, middle, percent_less

TASKS, QUICK_TASKS = 300, 60
SLOTS = 4
LONGEST_SECONDS = 300.0
FIFO = "fifo"
POLICIES = {
    FIFO: "scheduling.policies.Fifo",
    "priority": "scheduling.policies.Priority",
    "ageing": "scheduling.policies.Ageing",
}
METHOD = (
    "{tasks} shell tasks in one shuffled order, the same for every policy: seven in ten short "
    "(`sleep 0.05`, priority 90), three in ten long (`sleep 0.5`, priority 10). They arrive in "
    "ten jobs, evenly, over half the time in which one worker with four slots can run them. "
    "The scheduler and the worker are the real ones; completion is completed_at - created_at. "
    "Strict priority, FIFO, and ageing (60 s of waiting outweigh one step of priority)."
)


def run(bench: Bench) -> Section:
    tasks = bench.size(TASKS, QUICK_TASKS)
    measures = {policy: partial(measure, bench, policy, tasks) for policy in POLICIES}
    rounds = bench.in_turns("policy", measures)
    table = Table(["policy", "mean s", "short s", "long s", "mean, percent less than FIFO"])
    fifo = middle(values(rounds, FIFO, "mean"))
    for policy in POLICIES:
        found = [middle(values(rounds, policy, name)) for name in ("mean", "short", "long")]
        table.rows.append([policy, *found, percent_less(found[0], fifo)])
    return Section("policy", "Priority against FIFO", METHOD.format(tasks=tasks), [table])


def measure(bench: Bench, policy: str, tasks: int) -> Figures:
    name = bench.fresh(DTS)
    environment = bench.django(name) | {"DTS_POLICY": POLICIES[policy]}
    manage = [sys.executable, str(ROOT / "manage.py")]
    probe = [sys.executable, "-m", "benchmarks.probes.policy"]
    worker = [*manage, "run_worker", "--name", "bench", "--slots", str(SLOTS)]
    with bench.processes.running([[*manage, "run_scheduler"], worker], environment):
        _wait(bench, name, "SELECT EXISTS (SELECT FROM workers)")
        bench.processes.run([*probe, "submit", str(tasks), str(SLOTS)], environment)
        _wait(bench, name, "SELECT NOT EXISTS (SELECT FROM tasks WHERE final_status IS NULL)")
    figures: Figures = json.loads(bench.processes.run([*probe, "figures"], environment))
    return figures


def _wait(bench: Bench, name: str, condition: str) -> None:
    give_up_at = time.monotonic() + LONGEST_SECONDS
    with bench.database.connect(name) as connection:
        while not connection.execute(condition).fetchone()[0]:  # type: ignore[index]
            if time.monotonic() > give_up_at:
                raise PeerFailed(f"not done in {LONGEST_SECONDS:g} s")
            time.sleep(0.1)
