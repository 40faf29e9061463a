"""The tasks of a job as a graph: who waits for whom, checked before anything is stored."""

from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple

from dtsproject.errors import Refusal
from jobs.specs import Parent, TaskSpec

MAX_EDGES = 100_000
# Of a cycle that is longer, what is left out is an ellipsis.
SHOWN_TASKS = 20


class BadDependency(Refusal):
    """`path` leads to what is at fault: ("tasks", 3, "depends_on", 0)."""

    status, code, title = 422, "bad_dependency", "A dependency cannot be"

    def __init__(self, detail: str, *path: str | int) -> None:
        super().__init__(detail, pointer="/".join(["#", *map(str, path)]))
        self.path = path


class Edge(NamedTuple):
    """The task at place `child` of its job waits for `parent`: another's place, or, `outside` of
    the job, a task's id."""

    child: int
    parent: int
    outside: bool
    on_failure: str
    nth: int  # in the child's list

    @property
    def path(self) -> tuple[str | int, ...]:
        return "tasks", self.child, "depends_on", self.nth


def edges_of(tasks: Sequence[TaskSpec]) -> list[Edge]:
    """Every edge of a job. Raises BadDependency for one that cannot be, and for a key used twice.

    Whether a task of another job is there is not known here.
    """
    places = _places(tasks)
    edges = [
        edge
        for child, task in enumerate(tasks)
        if task.depends_on
        for edge in _edges_of(child, task, places)
    ]
    if len(edges) > MAX_EDGES:
        raise BadDependency(
            f"A job has at most {MAX_EDGES:,} dependencies; this has {len(edges):,}.", "tasks"
        )
    if edges:
        _refuse_cycles(tasks, edges)
    return edges


def _places(tasks: Sequence[TaskSpec]) -> dict[str, int]:
    places: dict[str, int] = {}
    for place, task in enumerate(tasks):
        if task.key and places.setdefault(task.key, place) != place:
            raise BadDependency(
                f"Task {places[task.key]} of this job has the key {task.key}, too.",
                *("tasks", place, "key"),
            )
    return places


def _edges_of(child: int, task: TaskSpec, places: Mapping[str, int]) -> Iterator[Edge]:
    seen = set()
    for nth, given in enumerate(task.depends_on):
        name, on_failure = given if isinstance(given, Parent) else Parent(given)
        path = ("tasks", child, "depends_on", nth)
        if name in seen:
            raise BadDependency(f"{name} is named twice.", *path)
        seen.add(name)
        if isinstance(name, int):
            yield Edge(child, name, True, on_failure, nth)
        elif name not in places:
            raise BadDependency(f"No task of this job has the key {name!r}.", *path)
        elif places[name] == child:
            raise BadDependency(f"The task waits for itself: {name} -> {name}.", *path)
        else:
            yield Edge(child, places[name], False, on_failure, nth)


def _refuse_cycles(tasks: Sequence[TaskSpec], edges: Sequence[Edge]) -> None:
    graph: dict[int, list[int]] = {}
    for edge in edges:
        if not edge.outside:
            graph.setdefault(edge.child, []).append(edge.parent)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        around = error.args[1][:0:-1]  # each waits for the next; without the first again at its end
        start = around.index(min(around))
        around = [*around[start:], *around[: start + 1]]
        keys = [tasks[place].key for place in around]
        if len(keys) > SHOWN_TASKS:
            keys[SHOWN_TASKS - 2 : -1] = ["..."]
        raise BadDependency(
            f"Tasks wait for each other: {' -> '.join(keys)}.", "tasks", around[0], "depends_on"
        ) from None
