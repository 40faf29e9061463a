"""Workflows: three that scientists ran, as jobs of sleeps; their order and how long they take."""

import contextlib
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import workflow
from benchmarks.bench import Bench, Figures, say, values
from benchmarks.errors import PeerFailed
from benchmarks.peers import DTS, ROOT
from benchmarks.processes import GUNICORN
from benchmarks.suite.http import free_port
from benchmarks.tables import Section, Table, middle
from benchmarks.workflow import Span, Task
from dts_client import Client

WORKFLOWS = ("montage", "epigenomics", "soykb")
SMALLEST = "soykb"
WORKERS, SLOTS = 2, 4
BOUND_SECONDS, QUICK_BOUND_SECONDS = 60.0, 3.0
START_SECONDS, LONGEST_SECONDS = 60.0, 600.0
SHOWN_EVERY_SECONDS = 5.0
METHOD = (
    "Three workflows from WfCommons' WfInstances (`benchmarks/data/workflows`), each submitted "
    "over HTTP as one job of `sleep`s with `depends_on` by key, its runtimes scaled so that "
    f"Graham's bound is {BOUND_SECONDS:g} s. One scheduler, {WORKERS} workers of {SLOTS} slots. "
    "Each command stamps its start and its end in a file. The run fails unless by these stamps "
    "each task ran exactly once, none started before all it depends on had ended, and the "
    "makespan, from the submit to the last end, lies between the critical path and the bound "
    f"plus overhead. (QUICK: {SMALLEST} alone, {QUICK_BOUND_SECONDS:g} s.)"
)
ALL_SLOTS = WORKERS * SLOTS
LEGEND = (
    "levels: tasks of the longest chain; work: all the seconds that tasks ran, by their stamps; "
    "critical path: seconds of the slowest chain; bound: Graham's (1969), "
    f"1/{ALL_SLOTS} work + {ALL_SLOTS - 1}/{ALL_SLOTS} critical path, for a scheduler that costs "
    "nothing; overhead: how long a slot was free while a task could have started."
)
FIGURES = ("work", "critical path", "makespan", "bound", "overhead")


def run(bench: Bench) -> Section:
    names = [SMALLEST] if bench.quick else WORKFLOWS
    measures = {name: partial(measure, bench, name) for name in names}
    rounds = bench.in_turns("workflows", measures, rounds=1)
    table = Table(
        ["workflow", "tasks", "edges", "levels", *(f"{name} s" for name in FIGURES),
         "overhead, ms a task", "ms a level"],
        legend=LEGEND,
    )  # fmt: skip
    for name in names:
        tasks = workflow.read(name)
        counts = len(tasks), sum(len(it.parents) for it in tasks), workflow.levels(tasks)
        found = [middle(values(rounds, name, figure)) for figure in FIGURES]
        lost_ms = None if found[-1] is None else 1000 * found[-1]
        shares = [lost_ms and lost_ms / number for number in (counts[0], counts[2])]
        table.rows.append([name, *counts, *found, *shares])
    return Section("workflows", "Workflows of science, as sleeps", METHOD, [table])


def measure(bench: Bench, name: str) -> Figures:
    bound_seconds = QUICK_BOUND_SECONDS if bench.quick else BOUND_SECONDS
    tasks = workflow.scaled(workflow.read(name), bound_seconds, ALL_SLOTS)
    stamps = bench.folder / f"{name}.stamps"
    began_at = sleep_through(bench, name, tasks, stamps)
    return judged(tasks, workflow.spans(stamps.read_text().splitlines()), began_at)


def sleep_through(bench: Bench, name: str, tasks: Sequence[Task], stamps: Path) -> float:
    """Has DTS run the tasks, which write `stamps`. Returns when they were submitted."""
    port = free_port()
    environment = bench.django(bench.fresh(DTS)) | {
        "ORCH_PORT": str(port),
        workflow.STAMPS: str(stamps),
    }
    manage = [sys.executable, str(ROOT / "manage.py")]
    make_token = [*manage, "token", "create", "bench", "--scopes", "read,submit"]
    token = bench.processes.run(make_token, environment).strip()
    worker = [*manage, "run_worker", "--slots", str(SLOTS), "--name"]
    workers = [[*worker, f"bench-{n}"] for n in range(WORKERS)]
    with bench.processes.running([GUNICORN, [*manage, "run_scheduler"], *workers], environment):
        dts = Client(f"http://127.0.0.1:{port}", token=token)
        wait_for_workers(dts)
        began_at = time.time()
        job = dts.submit(name, workflow.job(tasks))
        wait(dts, job, LONGEST_SECONDS)
    return began_at


def wait_for_workers(dts: Client) -> None:
    """Raises PeerFailed if they do not come."""
    give_up_at = time.monotonic() + START_SECONDS
    while len(dts.request("GET", "/workers")["results"]) < WORKERS:
        if time.monotonic() > give_up_at:
            raise PeerFailed(f"the workers did not start within {START_SECONDS:g} s")
        time.sleep(0.1)


def wait(dts: Client, job: dict[str, Any], seconds: float) -> None:
    """Returns when the job has ended, and says meanwhile how far it is. Raises PeerFailed."""
    give_up_at = time.monotonic() + seconds
    while time.monotonic() < give_up_at:
        with contextlib.suppress(TimeoutError):
            dts.wait(job, timeout=SHOWN_EVERY_SECONDS)
            return
        counts = dts.job(job)["counts"]
        say(f"{job['name']}: {counts['done']} of {sum(counts.values())} tasks done")
    raise PeerFailed(f"not done in {seconds:g} s")


def judged(tasks: Sequence[Task], found: Mapping[str, Sequence[Span]], began_at: float) -> Figures:
    """The figures of a run, by its stamps alone. Raises PeerFailed if it is not as it must be."""
    if wrong := workflow.breaches(tasks, found):
        raise PeerFailed(f"{len(wrong)} breaches, such as: {wrong[0]}")
    ran = {key: runs[0] for key, runs in found.items()}
    real = workflow.as_run(tasks, ran)
    figures = {
        "work": sum(task.seconds for task in real),
        "critical path": workflow.critical_path(real),
        "makespan": max(span.end for span in ran.values()) - began_at,
        "bound": workflow.graham(real, ALL_SLOTS),
        "overhead": workflow.wasted(tasks, ran, began_at, ALL_SLOTS),
    }
    most = figures["bound"] + figures["overhead"]
    if not figures["critical path"] <= figures["makespan"] <= most:
        raise PeerFailed(f"the makespan is not within its bounds: {figures}")
    return figures
