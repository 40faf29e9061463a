"""Idle: what workers of the API cost it while there is nothing to do, and how soon they hear."""

import json
import sys
from functools import partial

from benchmarks.bench import Bench, Figures, values
from benchmarks.peers import DTS
from benchmarks.processes import GUNICORN
from benchmarks.suite.http import free_port
from benchmarks.tables import Section, Table, middle, percentile

WORKERS = 200
SECONDS, QUICK_SECONDS = 60, 20
TASKS, QUICK_TASKS = 200, 50
HOWS = {"asking": "ask each second", "waiting": "wait to be told"}
METHOD = (
    f"gunicorn as DTS configures it, a scheduler, recovery, and {WORKERS} workers of one slot that "
    "know the API alone: all in one process, which speaks for each by DTS's own transport. For "
    f"{SECONDS} s nothing is submitted; cores are the CPU time of gunicorn's processes meanwhile, "
    "memory the sum of their resident sets at its end. Then a task comes about every 0.3 s, "
    f"{TASKS} in all, over HTTP. Its wake-up is from its submit to its claim, by the database's "
    "clock: the submit and the scheduler are in it. Those who ask do so each second, and send a "
    f"heartbeat each five. (QUICK: {QUICK_SECONDS} s, {QUICK_TASKS} tasks.)"
)
WAKE_UPS = "SELECT 1000 * extract(epoch FROM started_at - created_at)::float8 FROM tasks"


def run(bench: Bench) -> Section:
    rounds = bench.in_turns("idle", {how: partial(measure, bench, how) for how in HOWS})
    table = Table([f"{WORKERS} workers", "cores", "MB", "wake-up p50 ms", "wake-up p95 ms"])
    for how, title in HOWS.items():
        figures = ("cores", "memory_mb", "p50", "p95")
        table.rows.append([title, *[middle(values(rounds, how, name)) for name in figures]])
    return Section("idle", "Idle workers of the API", METHOD, [table])


def measure(bench: Bench, how: str) -> Figures:
    name, port = bench.fresh(DTS), free_port()
    environment = bench.django(name) | {"ORCH_PORT": str(port)}
    python = [sys.executable, "-m"]
    token_command = [*python, "django", "token", "create", "idle", "--scopes", "work,submit"]
    token = bench.processes.run(token_command, environment).strip()
    loops = [[*python, "django", verb] for verb in ("run_scheduler", "run_recovery")]
    seconds, tasks = bench.size(SECONDS, QUICK_SECONDS), bench.size(TASKS, QUICK_TASKS)
    with bench.processes.running([GUNICORN, *loops], environment) as (server, *_):
        given = map(str, (port, token, server.pid, WORKERS, seconds, tasks, how))
        probe = [*python, "benchmarks.probes.idle_workers", *given]
        figures = json.loads(bench.processes.run(probe, environment))
    with bench.database.connect(name) as connection:
        waits = [row[0] for row in connection.execute(WAKE_UPS) if row[0] is not None]
    figures["claimed"] = len(waits)
    return figures | {"p50": percentile(waits, 0.5) or 0.0, "p95": percentile(waits, 0.95) or 0.0}
