"""Firing: how late the jobs of schedules are submitted, and whether each is once."""

import json
import sys
import time

from benchmarks.bench import Bench, Figures
from benchmarks.errors import PeerFailed
from benchmarks.peers import DTS, ROOT
from benchmarks.tables import Section, Table, percentile

SCHEDULES, AT_ONCE = 10_000, 100
MINUTES, QUICK_MINUTES = 3, 1
SETTLE_SECONDS = 10
METHOD = (
    f"{SCHEDULES:,} schedules, {AT_ONCE} of them due at the same second, the full minute, for "
    f"{MINUTES} minutes; two schedulers. Late is `fired_at` - `scheduled_at`, both by the "
    "database's clock; the job is committed with it, in a transaction of at most twenty. A firing "
    f"made twice, or not at all, fails the run. (QUICK: {QUICK_MINUTES} minute.)"
)


def run(bench: Bench) -> Section:
    table = Table(["firings", "p50 ms", "p95 ms", "max ms", "made twice"])

    def measure() -> Figures:
        minutes = QUICK_MINUTES if bench.quick else MINUTES
        found = fire(bench, minutes)
        late, twice = found["late_ms"], found["twice"]
        table.rows.append(
            [len(late), percentile(late, 0.5), percentile(late, 0.95), max(late), float(twice)]
        )
        if twice or not len(late) == found["jobs"] == AT_ONCE * minutes:
            raise PeerFailed(f"{len(late)} firings, {found['jobs']} jobs, {twice} made twice")
        return {"p95": percentile(late, 0.95) or 0.0}

    bench.attempt("firing", measure)
    return Section("firing", "How late schedules fire", METHOD, [table])


def fire(bench: Bench, minutes: int) -> dict:
    """What the probe found after so many minutes of firing."""
    name = bench.fresh(DTS)
    environment = bench.django(name)
    probe = [sys.executable, "-m", "benchmarks.probes.firing"]
    sizes = map(str, (SCHEDULES, AT_ONCE, minutes))
    last_due = float(bench.processes.run([*probe, "prepare", *sizes], environment))
    scheduler = [sys.executable, str(ROOT / "manage.py"), "run_scheduler"]
    with bench.processes.running([scheduler] * 2, environment):
        time.sleep(max(0.0, last_due - time.time()) + SETTLE_SECONDS)
    found: dict = json.loads(bench.processes.run([*probe, "figures"], environment))
    return found
