"""Load: many clients that submit without a pause, and whether every accepted job is stored."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.bench import Bench, Figures
from benchmarks.peers import DTS
from benchmarks.processes import GUNICORN
from benchmarks.suite.http import free_port
from benchmarks.tables import Section, Table, percentile

SECONDS, QUICK_SECONDS = 60, 5
CLIENTS, QUICK_CLIENTS = 200, 50
SETTLED_SECONDS = 10
NAMES = {201: "accepted", 429: "refused (429)", 503: "unavailable (503)", 0: "no answer"}
METHOD = (
    f"gunicorn as DTS configures it, asked for {SECONDS} s by {CLIENTS} clients, each over a "
    "connection that is kept alive, with a token: a job of one task, every fiftieth of 1,000, and "
    "the next as soon as the last is answered, refusals too. Nothing drains the queue. Then every "
    "accepted job is looked for in the database, with all its tasks; one that is missing fails the "
    "run. Memory is the sum of the resident sets of gunicorn's processes, so that pages they share "
    "count more than once. The client, one Python process, shares the cores with them and with "
    f"PostgreSQL. (QUICK: {QUICK_CLIENTS} clients, {QUICK_SECONDS} s.)"
)
STORED = """
SELECT count(*) FROM unnest(%s::bigint[], %s::int[]) AS accepted (job_id, tasks)
WHERE tasks = (SELECT count(*) FROM tasks WHERE tasks.job_id = accepted.job_id)
"""


def run(bench: Bench) -> Section:
    answers = Table(["answer", "number", "a second", "p50 ms", "p99 ms"])
    memory = Table(["gunicorn's memory", "start", f"after {SETTLED_SECONDS} s", "end", "peak"])

    def measure() -> Figures:
        seconds = QUICK_SECONDS if bench.quick else SECONDS
        found, stored = load(bench, seconds)
        answers.rows += rows(found["took_ms"], seconds)
        memory.rows.append(["MB", *moments(found["memory_mb"])])
        accepted = len(found["accepted"])
        memory.title = f"{stored:,} of {accepted:,} accepted jobs are stored with all their tasks"
        if stored != accepted or not accepted:
            bench.failed = True
            bench.notes.append(f"load: {memory.title}")
        return {"accepted": accepted, "stored": stored}

    bench.attempt("load", measure)
    return Section("load", "Submits under load", METHOD, [answers, memory])


def load(bench: Bench, seconds: int) -> tuple[dict[str, Any], int]:
    """What the clients met, and how many of the accepted jobs are stored whole."""
    name, port = bench.fresh(DTS), free_port()
    environment = bench.django(name) | {"ORCH_PORT": str(port)}
    python, clients = [sys.executable, "-m"], QUICK_CLIENTS if bench.quick else CLIENTS
    make_token = [*python, "django", "token", "create", "load", "--scopes", "submit"]
    token = bench.processes.run(make_token, environment).strip()
    with bench.processes.running([GUNICORN], environment) as (server,):
        given = map(str, (port, token, server.pid, seconds, clients))
        probe = [*python, "benchmarks.probes.submit_load", *given]
        found = json.loads(bench.processes.run(probe, environment))
    with bench.database.connect(name) as connection:
        ids, tasks = zip(*found["accepted"], strict=True) if found["accepted"] else ((), ())
        row = connection.execute(STORED, [list(ids), list(tasks)]).fetchone()
    return found, row[0] if row else 0


def rows(took_ms: Mapping[str, Sequence[float]], seconds: float) -> list[list]:
    """A row of the table for each status that was met, and one for all."""
    met = {NAMES.get(int(status), status): took for status, took in sorted(took_ms.items())}
    met["all"] = [took for some in took_ms.values() for took in some]
    return [
        [name, len(took), len(took) / seconds, percentile(took, 0.5), percentile(took, 0.99)]
        for name, took in met.items()
    ]


def moments(memory_mb: Sequence[tuple[float, float]]) -> list[float | None]:
    """At the start, SETTLED_SECONDS later, at the end, and the most."""
    sizes = [size for _, size in memory_mb]
    settled = next((size for at, size in memory_mb if at >= SETTLED_SECONDS), None)
    return [sizes[0], settled, sizes[-1], max(sizes)]
