"""Workflows that others ran: read, scaled, made a job of sleeps, and judged by their stamps.

A stamp is a line `<key> <start or end> <seconds since 1970>` that a task's own command wrote.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parent / "data" / "workflows"
STAMPS = "BENCH_STAMPS"
COMMAND = (
    'stamp() {{ echo "{key} $1 $(date +%s.%N)" >> "${file}"; }}; '
    "stamp start; sleep {seconds:.3f}; stamp end"
)


class Task(NamedTuple):
    key: str
    seconds: float
    parents: Sequence[str]


class Span(NamedTuple):
    start: float
    end: float


def read(name: str) -> list[Task]:
    """The tasks of data/workflows/NAME.json, parents before children."""
    return [Task(**row) for row in json.loads((FOLDER / f"{name}.json").read_text())]


def scaled(tasks: Sequence[Task], bound_seconds: float, slots: int) -> list[Task]:
    """The same workflow, faster or slower, so that Graham's bound on the slots is this."""
    factor = bound_seconds / graham(tasks, slots)
    return [task._replace(seconds=factor * task.seconds) for task in tasks]


def job(tasks: Iterable[Task]) -> list[dict[str, Any]]:
    """The tasks as POST jobs takes them."""
    return [
        {
            "key": task.key,
            "name": task.key,
            "payload": {"cmd": _command(task)},
            "depends_on": task.parents,
        }
        for task in tasks
    ]


def _command(task: Task) -> str:
    return COMMAND.format(key=task.key, seconds=task.seconds, file=STAMPS)


def critical_path(tasks: Iterable[Task]) -> float:
    """How long the longest chain takes: no number of slots is faster."""
    until: dict[str, float] = {}
    for task in tasks:
        until[task.key] = task.seconds + max((until[key] for key in task.parents), default=0.0)
    return max(until.values())


def levels(tasks: Iterable[Task]) -> int:
    """How many tasks the longest chain has, by number."""
    return int(critical_path(task._replace(seconds=1.0) for task in tasks))


def graham(tasks: Sequence[Task], slots: int) -> float:
    """What no greedy scheduler exceeds that costs nothing itself, whatever order it prefers.

    (1/m) work + (1 - 1/m) critical path, by R. L. Graham, Bounds on Multiprocessing Timing
    Anomalies, 1969.
    """
    work = sum(task.seconds for task in tasks)
    return (work + (slots - 1) * critical_path(tasks)) / slots


def spans(stamps: Iterable[str]) -> dict[str, list[Span]]:
    """Of each key the runs that its stamps tell of; what never ended, ended never."""
    times: Mapping[str, dict[str, list[float]]] = defaultdict(lambda: {"start": [], "end": []})
    for line in stamps:
        key, what, at = line.split()
        times[key][what].append(float(at))
    never = float("inf")
    return {
        key: [
            Span(start, of["end"][n] if n < len(of["end"]) else never)
            for n, start in enumerate(of["start"])
        ]
        for key, of in times.items()
    }


def breaches(tasks: Sequence[Task], found: Mapping[str, Sequence[Span]]) -> list[str]:
    """What is wrong: tasks that did not run exactly once, or before what they depend on."""
    wrong = []
    for task in tasks:
        ran = [span for span in found.get(task.key, ()) if span.end < float("inf")]
        if len(ran) != 1 or len(found[task.key]) != 1:
            wrong.append(
                f"{task.key} ran {len(found.get(task.key, ()))} times, {len(ran)} to its end"
            )
            continue
        for parent in task.parents:
            over_at = max((span.end for span in found.get(parent, ())), default=float("inf"))
            if ran[0].start < over_at:
                wrong.append(f"{task.key} started before {parent} had ended")
    return wrong + [f"{key} is no task" for key in found.keys() - {task.key for task in tasks}]


def as_run(tasks: Iterable[Task], ran: Mapping[str, Span]) -> list[Task]:
    """The workflow with the seconds that its tasks really took."""
    return [task._replace(seconds=ran[task.key].end - ran[task.key].start) for task in tasks]


def wasted(tasks: Sequence[Task], ran: Mapping[str, Span], began_at: float, slots: int) -> float:
    """For how many seconds a slot was free and a task could have started: the overhead.

    A scheduler that cost nothing would have none. Makespan is at most Graham's bound plus this.
    """
    changes = []  # when, by how many more tasks are ready, and running
    for task in tasks:
        ready_at = max((ran[key].end for key in task.parents), default=began_at)
        start, end = ran[task.key]
        changes += [(ready_at, 1, 0), (start, -1, 1), (end, 0, -1)]
    seconds, ready, running, last = 0.0, 0, 0, began_at
    for at, more_ready, more_running in sorted(changes):
        if ready > 0 and running < slots:
            seconds += at - last
        ready, running, last = ready + more_ready, running + more_running, at
    return seconds
