"""Whether any live worker can run what is submitted, and what it lacks if none can."""

import time
from collections import Counter
from collections.abc import Collection, Sequence
from itertools import chain
from typing import NamedTuple, TypedDict

from dtsproject.conf import conf
from jobs import statements
from jobs.labels import PLAIN, LaneKey, lane_key, size_offered
from jobs.specs import JobSpec
from jobs.spooled import Spooled
from jobs.submission import lanes_of

CACHED_SECONDS = 1.0


class Offer(NamedTuple):
    """What a live worker has: the columns of jobs/sql/offers.sql."""

    capabilities: Sequence[str]
    queues: Sequence[str]
    slots: int
    takes_new: bool


class Warned(TypedDict):
    pointer: str
    tasks: int
    detail: str


def offers() -> list[Offer]:
    """Those of all live workers."""
    rows = statements.rows("offers", {"lease_seconds": conf().lease_seconds})
    return list(map(Offer._make, rows))


class Recent:
    """The offers, at most CACHED_SECONDS old: more submits cost no more queries."""

    def __init__(self) -> None:
        self._taken: tuple[float, list[Offer]] = (float("-inf"), [])

    def offers(self) -> list[Offer]:
        if time.monotonic() - self._taken[0] > CACHED_SECONDS:
            self._taken = time.monotonic(), offers()
        return self._taken[1]


recent = Recent()


def warnings(spec: JobSpec) -> list[Warned]:
    """For each lane of the job that no live worker serves, its first task, how many tasks of the
    job are in it, and why. A job that requires nothing is not looked at."""
    lanes = lanes_of(spec.tasks) - {PLAIN}
    lacks = {lane: lacking(spec.queue, *lane, recent.offers()) for lane in lanes}
    unserved = {lane: why for lane, why in lacks.items() if why}
    if not unserved:
        return []
    tasks = spec.tasks
    batches = tasks.batches() if isinstance(tasks, Spooled) else [tasks]
    firsts: dict[LaneKey, int] = {}
    numbers: Counter[LaneKey] = Counter()
    for n, task in enumerate(chain.from_iterable(batches)):
        if (lane := lane_key(task.requires, task.slots)) in unserved:
            firsts.setdefault(lane, n)
            numbers[lane] += 1
    return [
        {"pointer": f"#/tasks/{n}", "tasks": numbers[lane], "detail": unserved[lane]}
        for lane, n in firsts.items()
    ]


def lacking(queue: str, requires: Collection[str], slots: int, live: Collection[Offer]) -> str:
    """What all live workers lack to run such a task, in a sentence; nothing if one can."""
    if not live:
        return "No worker is running."
    live = [offer for offer in live if not offer.queues or queue in offer.queues]
    if not live:
        return f"No live worker serves the queue {queue}."
    if missing := [it for it in requires if not any(it in offer.capabilities for offer in live)]:
        return f"No live worker offers {', '.join(_spelt(it, live) for it in missing)}."
    live = [offer for offer in live if set(requires).issubset(offer.capabilities)]
    if not live:
        return f"No live worker offers {' and '.join(requires)} together."
    largest = max(offer.slots for offer in live)
    if slots > largest:
        among = f" that offers {' and '.join(requires)}" if requires else ""
        return f"It needs {slots} slots; the largest live worker{among} has {largest}."
    if not any(offer.takes_new and offer.slots >= slots for offer in live):
        return "The live workers that could run it take nothing new: they are cordoned, or drain."
    return ""


def _spelt(label: str, live: Collection[Offer]) -> str:
    """The label; of a size also the most that is offered, which may be what was asked for."""
    name, is_size, _ = label.partition(">=")
    most = max((size_offered(name, offer.capabilities) for offer in live), default=0)
    if not (is_size and most):
        return label
    return f"{label} (sizes are rounded up to powers of two; the most is {name}={most})"
