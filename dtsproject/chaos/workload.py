"""What a chaos run submits, all of it known from the seed: jobs, their tasks, and second thoughts.

Each task is named after its kind; command.py says what each kind does.
"""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from dtsproject.chaos.webs import link

COMMAND = Path(__file__).with_name("command.py")
TASKS_A_SECOND = 10.0
# kind: how often, seconds from - to, max_retries, timeout_seconds
KINDS: dict[str, tuple[int, tuple[float, float], int, float | None]] = {
    "quick": (40, (0, 0), 0, None),
    "sleep": (35, (0.1, 3.0), 0, None),
    "flaky": (8, (0, 0.3), 3, None),
    "fails": (5, (0, 0.2), 2, None),
    "late": (4, (60, 60), 1, 1.0),
    "stubborn": (3, (60, 60), 0, 0.7),
    "daemon": (5, (60, 60), 0, None),
}
# Kinds whose command never fails: only a cancel or three losses may end them otherwise.
SURE = {"quick", "sleep", "daemon"}
# Some of these have a concurrency key, of which no more than so many may run at once.
SCARCE, SCARCE_AT_ONCE, SCARCE_SHARE = "scarce", 2, 0.08
MAY_BE_SCARCE = {"quick", "sleep"}
SIZES = ((1, 1, 50), (2, 5, 30), (6, 15, 15), (16, 50, 5))  # from, to, how often
MEAN_SIZE = 4.7
# Of jobs, how many carry a unique key, and what they do while another holds it.
UNIQUE = {"": 70, "reject": 15, "join": 15}
UNIQUE_KEYS = 3


@dataclass(frozen=True)
class Submission:
    """A job to submit `at` seconds after the start; `then` it is cancelled or retried, perhaps."""

    number: int
    at: float
    tasks: list[dict[str, Any]]
    then: str
    then_after: float
    unique: dict[str, str] | None = None

    def body(self) -> dict[str, Any]:
        return {"name": f"chaos-{self.number}", "tasks": self.tasks, "unique": self.unique}


def plan(seed: int, seconds: float) -> list[Submission]:
    """The submissions of the first `seconds`."""
    # Neither here nor in the schedule: S311, a seeded generator is the point.
    random = Random(f"workload {seed}")  # noqa: S311
    submissions: list[Submission] = []
    at = 0.0
    while (at := at + random.expovariate(TASKS_A_SECOND / MEAN_SIZE)) < seconds:
        low, high, _ = random.choices(SIZES, [often for *_, often in SIZES])[0]
        tasks = [task(random) for _ in range(random.randint(low, high))]
        then = random.choices(["", "cancel", "retry"], [75, 15, 10])[0]
        after = random.uniform(0.1, 2.0) if then == "cancel" else random.uniform(2.0, 6.0)
        unique = _unique(random)
        submissions.append(Submission(len(submissions) + 1, at, tasks, then, after, unique))
    webs = Random(f"webs {seed}")  # noqa: S311
    for submission in submissions:
        link(webs, submission.tasks)
    return submissions


def _unique(random: Random) -> dict[str, str] | None:
    on_duplicate = random.choices(list(UNIQUE), list(UNIQUE.values()))[0]
    key = f"key-{random.randint(1, UNIQUE_KEYS)}"
    return {"key": key, "on_duplicate": on_duplicate} if on_duplicate else None


def task(random: Random) -> dict[str, Any]:
    kind = random.choices(list(KINDS), [often for often, *_ in KINDS.values()])[0]
    _, (low, high), retries, timeout = KINDS[kind]
    seconds = f"{random.uniform(low, high):.2f}"
    line = shlex.join([sys.executable, "-I", "-S", str(COMMAND), kind, seconds])
    # Half of them without a shell between, so that both shapes of a tree are met.
    cmd = f"exec {line}" if random.random() < 0.5 else f"{line}; exit $?"
    made = {"name": kind, "payload": {"cmd": cmd}, "priority": random.randint(-5, 5)}
    if kind in MAY_BE_SCARCE and random.random() < SCARCE_SHARE:
        made["concurrency_key"] = SCARCE
    if retries:
        made["max_retries"] = retries
    if timeout:
        made["timeout_seconds"] = timeout
    return made
