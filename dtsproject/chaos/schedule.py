"""Which faults a chaos run injects, when, into what and for how long: all of it from the seed."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

WORKERS = ("worker-1", "worker-2", "worker-3")
SCHEDULERS = ("scheduler-1", "scheduler-2")
RECOVERIES = ("recovery-1", "recovery-2")

FIRST_AT = 1.5
MEAN_GAP_SECONDS = 1.1
# What was just hit is left alone meanwhile, so that most faults meet a process that runs.
REST_SECONDS = 4.0
FREEZE, FULL = "machine frozen", "state folder full"

# kind: what it may hit, seconds from - to
KINDS: dict[str, tuple[Sequence[str], float, float]] = {
    "worker killed": (WORKERS, 0, 0),
    "worker stopped": (WORKERS, 0.5, 7),
    "guard killed": (WORKERS, 0, 0),
    "guard stopped": (WORKERS, 0.5, 6),
    "warden killed": (WORKERS, 0, 0),
    "guard and warden killed": (WORKERS, 0, 0),
    "worker and guard killed": (WORKERS, 0, 0),
    FREEZE: (WORKERS, 1, 7),
    "wall clock jumped": (WORKERS, 2, 6),
    FULL: (WORKERS, 2, 5),
    "scheduler killed": (SCHEDULERS, 0, 0),
    "scheduler stopped": (SCHEDULERS, 1, 6),
    "recovery killed": (RECOVERIES, 0, 0),
    "recovery stopped": (RECOVERIES, 1, 6),
    "API killed": (("api",), 0, 0),
    "API stopped": (("api",), 0.5, 4),
    "database restarted (immediate)": (("database",), 0.2, 2),
    "database restarted (fast)": (("database",), 0.2, 2),
    "database frozen": (("database",), 1, 5),
    "WAL flush slow": (("database",), 1, 5),
    "answers lost": (("wire",), 1, 3),
    "connections dropped": (("wire",), 0, 0),
    "wire slow": (("wire",), 1, 5),
}


@dataclass(frozen=True)
class Fault:
    """`at` and `seconds` are planned; the history has when it really began and ended."""

    number: int
    kind: str
    target: str
    at: float
    seconds: float


def schedule(seed: int, seconds: float) -> list[Fault]:
    """The faults of a run of `seconds`; each ends within it.

    Kinds come from a shuffled bag that is filled again when it is empty, so none is left out.
    """
    random = Random(f"schedule {seed}")  # noqa: S311
    faults: list[Fault] = []
    free_at: dict[str, float] = {}
    bag: list[str] = []
    at = FIRST_AT
    while at < seconds:
        if not bag:
            bag = random.sample(list(KINDS), len(KINDS))
        if found := _next(random, bag, free_at, at):
            kind, target = found
            _, low, high = KINDS[kind]
            lasts = min(random.uniform(low, high), seconds - at)
            faults.append(Fault(len(faults) + 1, kind, target, round(at, 3), round(lasts, 3)))
            free_at[target] = at + lasts + REST_SECONDS
        at += min(max(random.expovariate(1 / MEAN_GAP_SECONDS), 0.2), 3.0)
    return faults


def _next(
    random: Random, bag: list[str], free_at: dict[str, float], at: float
) -> tuple[str, str] | None:
    """Takes the first kind of the bag that has a target at rest."""
    for kind in bag:
        targets = KINDS[kind][0]
        rested = [target for target in targets if free_at.get(target, 0) <= at]
        if rested:
            bag.remove(kind)
            return kind, random.choice(rested)
    return None
