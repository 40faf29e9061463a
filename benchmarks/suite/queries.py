"""Queries: what lists and pages cost with much history, and what they would without indexes."""

import json
import sys
from functools import partial

from benchmarks.bench import Bench, Figures, say
from benchmarks.peers import DTS
from benchmarks.tables import Section, Table, middle, percent_less

FEW, MANY, QUICK_MANY = 10_000, 1_000_000, 100_000
METHOD = (
    "DTS's own API and admin, asked in process (no HTTP server), {few:,} against {many:,} tasks: "
    "100 a job, of these 95 done, 3 failed, 1 cancelled, 1 pending; an attempt for each that "
    "ended. Each request is made once uncounted, then five times: the median, and of it the time "
    "in SQL. All of it inside a transaction, in which then every index but the primary keys is "
    "dropped from tasks, jobs, attempts and the narrow tables, the same requests are made again, "
    "and which is rolled back. The last column is by how much less the indexes make the SQL."
)
SQL, BARE = ", SQL", ", SQL without indexes"


def run(bench: Bench) -> Section:
    few, many = bench.size(FEW, FEW), bench.size(MANY, QUICK_MANY)
    small = bench.attempt(f"queries {few}", partial(measure, bench, few)) or {}
    large = bench.attempt(f"queries {many}", partial(measure, bench, many)) or {}
    columns = [f"{few:,} tasks ms", f"{many:,} tasks ms", "SQL ms", "SQL without indexes ms"]
    table, saved = Table(["request", *columns, "percent less"]), []
    for name in large:
        if name + SQL in large:
            sql, bare = large[name + SQL], large[name + BARE]
            saved.append(percent_less(sql, bare))
            table.rows.append([name, small.get(name), large[name], sql, bare, saved[-1]])
    table.rows.append(["median of them", None, None, None, None, middle(saved)])
    return Section("queries", "Metadata queries", METHOD.format(few=few, many=many), [table])


def measure(bench: Bench, rows: int) -> Figures:
    """Milliseconds of each request; under its name and SQL or BARE, of its SQL."""
    say(f"queries: making {rows:,} tasks")
    environment = bench.django(bench.fresh(DTS))
    command = [sys.executable, "-m", "benchmarks.probes.queries", str(rows)]
    found = json.loads(bench.processes.run(command, environment, seconds=1800))
    figures: dict[str, float] = {}
    for name, (whole, sql) in found["with"].items():
        bare = found["without"][name][1]
        figures |= {name: whole, name + SQL: sql, name + BARE: bare}
        say(f"queries {rows:,}: {name}: {whole:.1f} ms, SQL {sql:.1f}, without indexes {bare:.1f}")
    return figures
