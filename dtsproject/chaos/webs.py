"""Dependencies in a chaos run: some of its jobs are graphs, and what must be true of those.

A parent "ended in time" if it was over by what its own commands stamped, and by its recorded end,
before its dependent's command started. Which of its ends: any since the dependent was last retried.
"""

from collections.abc import Iterator
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, Any

from dtsproject.chaos.history import CLOCK_ERROR_SECONDS, Event
from jobs.states import TERMINAL, OnFailure, Status

if TYPE_CHECKING:
    from dtsproject.chaos.checks import Found, Index

LINKED_PERCENT = 50
RUN_PERCENT = 30  # of edges: whatever becomes of the parent
CHAIN = 5  # tasks at most: the last of a chain waits for the faults that hit all before it
BAD = {Status.FAILED, Status.CANCELLED}


def link(random: Random, tasks: list[dict[str, Any]]) -> None:
    """Has the tasks of some jobs depend on each other: in chains, on one, as one, or at random."""
    if len(tasks) < 2 or random.randrange(100) >= LINKED_PERCENT:
        return
    shape = random.choice([_chains, _diamond, _any])
    for place, task in enumerate(tasks):
        task["key"] = f"{place}"
        parents = shape(random, place, len(tasks))
        if parents:
            task["depends_on"] = [_edge(random, parent) for parent in sorted(set(parents))]


def _edge(random: Random, parent: int) -> Any:
    if random.randrange(100) < RUN_PERCENT:
        return {"key": f"{parent}", "on_failure": OnFailure.RUN.value}
    return f"{parent}"


def _chains(random: Random, place: int, size: int) -> list[int]:
    return [place - 1] if place % CHAIN else []


def _diamond(random: Random, place: int, size: int) -> list[int]:
    """From the first to all, from all to the last."""
    if place == size - 1:
        return list(range(max(1, size - 2)))
    return [0] if place else []


def _any(random: Random, place: int, size: int) -> list[int]:
    near = range(place - place % (2 * CHAIN), place)
    return [parent for parent in near if random.random() < 0.3]


def too_early(index: "Index") -> "Found":
    """No command starts before all that its task depends on has ended, well where it must."""
    for edge in index.history.of("edge"):
        child, parent = edge["task"], edge["depends_on"]
        good = [Status.DONE] if edge["on_failure"] == OnFailure.CANCEL else TERMINAL
        ends = [it for it in _ends(index, parent) if it["after"] in good]
        for life in index.lives[child]:
            since = _generation_began_at(index, child, life["token"])
            if not any(_in_time(index, end, life, since) for end in ends):
                yield (
                    f"task {child} started before task {parent}, on which it depends, had ended",
                    *(edge, life, *index.lives[parent], *index.moves[parent]),
                )


def _ends(index: "Index", task: int) -> Iterator[Event]:
    """The task's terminal states, each with `left_at`: when a retry took it out of it, if ever."""
    moves = index.moves[task]
    for move, after in pairwise([*moves, {"at": float("inf")}]):
        if move["after"] in TERMINAL:
            yield {**move, "left_at": after["at"]}


def _generation_began_at(index: "Index", task: int, token: int) -> float:
    """When the retry came that led to this attempt; for ever ago if there was none."""
    retried_at = float("-inf")
    for move in index.moves[task]:
        if move["before"] in TERMINAL:
            retried_at = move["at"]
        if move["token"] == token and move["after"] == Status.IN_PROGRESS:
            break
    return retried_at


def _in_time(index: "Index", end: Event, life: Event, since: float) -> bool:
    """Whether the parent had ended thus, at a moment since then, as this life began."""
    if end["at"] > life["at"] + CLOCK_ERROR_SECONDS:
        return False
    if end["left_at"] <= since + CLOCK_ERROR_SECONDS:  # retried together: it is awaited anew
        return False
    return all(
        it["until"] <= life["at"] or index.thawing(it)
        for it in index.lives[end["task"]]
        if it["token"] <= end["token"]
    )


def uncalled_for(index: "Index") -> "Found":
    """What nobody cancelled is cancelled only because of what it depends on, and then always."""
    asked = {it["job"] for it in index.history.of("asked") if it["what"] == "cancel"}
    must_end_well = [it for it in index.history.of("edge") if it["on_failure"] == OnFailure.CANCEL]
    parents: dict[int, list[int]] = {}
    for edge in must_end_well:
        parents.setdefault(edge["task"], []).append(edge["depends_on"])
    for number, task in index.tasks.items():
        for move in index.moves[number]:
            if move["after"] != Status.CANCELLED or task["job"] in asked:
                continue
            if not any(
                _ended_badly(index, parent, move["at"]) for parent in parents.get(number, ())
            ):
                yield f"task {number} was cancelled, and nothing called for it", task, move
    for edge in must_end_well:
        child, parent = index.tasks[edge["task"]], index.tasks[edge["depends_on"]]
        if parent["status"] in BAD and child["status"] != Status.CANCELLED:
            yield (
                f"task {child['task']} is {child['status']}, task {parent['task']}, on which it "
                f"depends, {parent['status']}",
                *(edge, child, parent),
            )


def _ended_badly(index: "Index", task: int, by: float) -> bool:
    ends = _ends(index, task)
    return any(it["after"] in BAD and it["at"] <= by + CLOCK_ERROR_SECONDS for it in ends)


FACTS = {
    "edge": """
        SELECT extract(epoch FROM created_at)::float8 AS at, task_id AS task,
            depends_on_id AS depends_on, on_failure
        FROM dependencies JOIN tasks ON tasks.id = task_id""",
}
CHECKS = {"started too early": too_early, "cancelled without a cause": uncalled_for}
