"""What a run amounts to, in numbers, all of them from its history.

Recovery time is counted from a fault's end (of a kill: from the kill) until what it hit worked
again, that is until
    worker, guard, its machine, clock or disk   that worker started a task
    API                                         /readyz, asked after that, said so
    scheduler                                   any task was queued
    recovery, database, wire                    any task reached a terminal state
A fault after which that never came, or which ended when nothing was left to do, has none.
"""

from collections import Counter, defaultdict
from collections.abc import Callable
from statistics import quantiles
from typing import Any

from dtsproject.chaos.checks import CHECKS, Breach
from dtsproject.chaos.history import Event, History
from dtsproject.chaos.schedule import KINDS
from jobs.states import TERMINAL, Status


def figures(history: History, breaches: list[Breach]) -> dict[str, Any]:
    run = history.of("run")[0]
    pauses = [it["pause_seconds"] for it in history.of("acknowledged")]
    answers = Counter(str(it["answer"]) for it in history.of("tried"))
    tasks = Counter(it["status"] for it in history.of("task"))
    submitted, firings = history.of("submitted"), history.of("firing")
    fired = {it["job"] for it in firings}
    return {
        "seed": run["seed"],
        "seconds": run["seconds"],
        "settled_seconds": run.get("settled_seconds"),
        "faults": of_faults(history),
        "jobs": {
            "submitted": len(submitted),
            "acknowledged": len(pauses),
            "held": len(history.of("held")),
            "stored": sum(it["job"] not in fired for it in history.of("job")),
            "unacknowledged_tries": dict(answers),
        },
        "tasks": {
            "submitted": sum(it["tasks"] for it in submitted),
            "scheduled": sum(it["job"] in fired for it in history.of("task")),
            "stored": sum(tasks.values()),
            **{str(status): tasks[status] for status in Status if tasks[status]},
        },
        "edges": len(history.of("edge")),
        "firings": dict(Counter(it["outcome"] for it in firings)),
        "attempts": dict(Counter(it["outcome"] for it in history.of("attempt"))),
        "worst_pause_seconds": max(pauses, default=None),
        "checks": {name: sum(it.check == name for it in breaches) for name in CHECKS},
        "breaches": [
            {"check": it.check, "subject": it.subject, "rows": it.rows} for it in breaches
        ],
    }


def of_faults(history: History) -> dict[str, Any]:
    """By kind: how many were injected and skipped, and the recovery times' percentiles."""
    begun: dict[str, list[Event]] = defaultdict(list)
    for it in history.of("fault_begin"):
        begun[it["kind"]].append(it)
    ends = {it["fault"]: it["at"] for it in history.of("fault_end")}
    signs = Signs(history)
    found = {}
    for kind in KINDS:
        injected = [it for it in begun[kind] if "skipped" not in it]
        times = [signs.recovery(it["target"], ends[it["fault"]]) for it in injected]
        known = sorted(time for time in times if time is not None)
        found[kind] = {
            "injected": len(injected),
            "skipped": len(begun[kind]) - len(injected),
            "recovery_p50_seconds": percentile(known, 50),
            "recovery_p95_seconds": percentile(known, 95),
        }
    return found


class Signs:
    """The moments that show that something works, in order of time."""

    def __init__(self, history: History) -> None:
        self.starts = history.of("lived")
        moves = history.of("moved")
        self.ends = [it["at"] for it in moves if it["after"] in TERMINAL]
        self.queued = [it["at"] for it in moves if it["after"] == Status.QUEUED]
        self.probes = [it for it in history.of("probed") if it["ready"]]

    def recovery(self, target: str, since: float) -> float | None:
        """Seconds from `since` until the target showed that it worked."""
        what = target.partition("-")[0]
        signs: dict[str, Callable[[], list[float]]] = {
            "worker": lambda: [it["at"] for it in self.starts if it["worker"] == target],
            "scheduler": lambda: self.queued,
            "api": lambda: [it["at"] for it in self.probes if it["asked_at"] >= since],
        }
        later = [at for at in signs.get(what, lambda: self.ends)() if at >= since]
        return later[0] - since if later else None


def percentile(values: list[float], percent: int) -> float | None:
    """Of sorted values, by linear interpolation between the two nearest."""
    if not values:
        return None
    if len(values) == 1:
        return round(values[0], 2)
    return round(quantiles(values, n=100, method="inclusive")[percent - 1], 2)
