"""Histories of tasks that depend on each other: good ones, and each way to spoil them."""

from tests.chaos.histories import attempt, change, lived, moved, without


def ran(task, at, until, status, *, token=1, generation=1, code=0):
    """An attempt, from pending on, that ended the task."""
    of_it = {"task": task, "generation": generation}
    outcome = "done" if status == "done" else "failed"
    return [
        moved(at - 0.2, "pending", "queued", token - 1, **of_it),
        moved(at - 0.1, "queued", "in_progress", token, **of_it),
        lived(at, until, token, task=task, code=code),
        attempt(until + 0.1, token, outcome, **of_it),
        moved(until + 0.1, "in_progress", status, token, **of_it),
    ]


def row(task, status, *, token=1, generation=1, name="fails"):
    found = {"task": task, "job": 7, "name": name, "status": status}
    return {"event": "task", "at": 9.0, **found, "generation": generation, "token": token}


def edge(task, depends_on, on_failure="cancel"):
    return {"event": "edge", "at": 1.0, "task": task, "depends_on": depends_on,
            "on_failure": on_failure}  # fmt: skip


def good() -> list[dict]:
    """1 is done; 2, after it, fails; 3, after 2, is cancelled; 4 runs whatever becomes of both."""
    return [
        *(edge(2, 1), edge(3, 2), edge(4, 2, "run"), edge(4, 3, "run")),
        *ran(1, 2.2, 3.0, "done"),
        *ran(2, 3.4, 4.0, "failed", code=3),
        moved(4.2, "pending", "cancelled", 0, task=3),
        *ran(4, 4.5, 5.0, "done"),
        *(row(1, "done"), row(2, "failed"), row(3, "cancelled", token=0), row(4, "done")),
    ]


def retried() -> list[dict]:
    """2 is retried, and is done; 3 comes back with it, and waits for it anew."""
    events = [it for it in good() if it["event"] != "task" or it["task"] in (1, 4)]
    return [
        *events,
        moved(6.0, "failed", "pending", 1, task=2, generation=2),
        moved(6.0, "cancelled", "pending", 0, task=3, generation=2),
        *ran(2, 6.3, 7.0, "done", token=2, generation=2),
        *ran(3, 7.4, 8.0, "done", generation=2),
        row(2, "done", token=2, generation=2),
        row(3, "done", generation=2),
    ]


EARLY, CAUSELESS = "started too early", "cancelled without a cause"
# What is the number of the event of its kind: lives are those of 1, 2, 4; then 2 and 3 retried.
SPOILT = {
    "a task starts before its parent has stamped its end": (
        ["outlived its end", EARLY],
        change(change(good(), "lived", 1, at=3.3), "lived", 0, until=3.35),
    ),
    "a task starts before its parent's end is recorded": (
        [EARLY],
        change(change(good(), "lived", 1, at=2.6), "lived", 0, until=2.5),
    ),
    "a task starts after a parent that failed": (
        [EARLY, CAUSELESS],
        change(good(), "edge", 2, on_failure="cancel"),
    ),
    "a retried task does not wait for its parent's second try": (
        [EARLY],
        change(retried(), "lived", 4, at=6.2),
    ),
    "a task is left when its parent failed": (
        ["not ended", EARLY, CAUSELESS],
        without(change(good(), "task", 2, status="pending"), "moved", 6),
    ),
    "a task is cancelled although its parent is done": (
        [CAUSELESS],
        change(good(), "edge", 1, depends_on=1),
    ),
    "a task is cancelled and depends on nothing": ([CAUSELESS], without(good(), "edge", 1)),
}
