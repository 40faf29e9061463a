"""What tasks wait for: edges stored with their job, and told when a task has ended.

The statement that ends a task with dependents notes it in `ended_parents`, and that is all that
ends cost. `release`, a scheduler's verb, tells the dependents: a statement of its own, which
therefore sees every edge, and a batch at a time however many there are. One at a time runs it, so
each edge is counted once.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from django.db import connection, transaction

from jobs import statements
from jobs.graph import BadDependency, Edge
from jobs.states import OnFailure, Status

# "dts" and "release" as two numbers for pg_try_advisory_xact_lock(int, int).
RELEASE_LOCK = (0x647473, 2)
# Ends told, and edges followed, by one statement.
RELEASED_AT_ONCE = 2_000
STORED_AT_ONCE = 10_000


class Web:
    """A job's edges while it is stored: the ids its tasks get, and what their rows say of edges.

    Made within the transaction of the submit. Without edges nothing of it costs a statement.
    """

    def __init__(self, tasks: int, edges: Sequence[Edge]) -> None:
        """Raises BadDependency for a task of another job that is not there or has failed."""
        self.edges = edges
        adopt([edge for edge in edges if edge.outside])
        self.ids: list[int] = []
        if edges:
            self.ids = [pk for (pk,) in statements.rows("task_ids", {"count": tasks})]
        self.parents_of = Counter(edge.child for edge in edges)
        self.named = {edge.parent for edge in edges if not edge.outside}

    def columns(self, start: int, stop: int) -> Mapping[str, list]:
        """What the rows of the tasks at these places say of edges."""
        if not self.edges:
            return {"dependency_count": [0], "has_dependents": [False]}
        places = range(start, stop)
        return {
            "dependency_count": [self.parents_of[place] for place in places],
            "has_dependents": [place in self.named for place in places],
        }

    def store(self) -> None:
        for start in range(0, len(self.edges), STORED_AT_ONCE):
            some = self.edges[start : start + STORED_AT_ONCE]
            rows = [
                (self.ids[e.child], e.parent if e.outside else self.ids[e.parent], e.on_failure)
                for e in some
            ]
            names = ("task_id", "depends_on_id", "on_failure")
            statements.execute("depend", statements.columns(names, rows))


def adopt(edges: Iterable[Edge]) -> None:
    """Has tasks of other jobs tell of their end, which their narrow rows, locked, hold up."""
    by_parent: dict[int, list[Edge]] = {}
    for edge in edges:
        by_parent.setdefault(edge.parent, []).append(edge)
    left = set(by_parent)
    while left:
        # A new statement each time: it sees a task that another verb moved meanwhile.
        rows = statements.rows("adopt", {"ids": sorted(left)})
        for pk in left - {pk for pk, *_ in rows}:
            raise BadDependency(f"There is no task {pk}.", *by_parent[pk][0].path)
        for pk, status, marked in rows:
            if marked and status in (Status.FAILED, Status.CANCELLED):
                _refuse_ended(pk, status, by_parent[pk])
        left -= {pk for pk, _, marked in rows if marked}


def _refuse_ended(pk: int, status: str, edges: Iterable[Edge]) -> None:
    for edge in edges:
        if edge.on_failure == OnFailure.CANCEL:
            ended = "has failed" if status == Status.FAILED else "was cancelled"
            raise BadDependency(
                f"Task {pk} {ended}: retry it, or give on_failure as run.", *edge.path
            )


class Released(NamedTuple):
    """How many rows were moved, the lowest score of those that may be promoted, and whether there
    is known to be more to tell."""

    moved: int
    lowest_score: int | None
    more: bool


NOTHING = Released(0, None, more=False)


def release() -> Released:
    """Tells dependents of tasks that have ended: those that wait for nothing more may start, those
    that waited for what did not end well are cancelled, and tell theirs the next time.

    What others have locked, and what is beyond RELEASED_AT_ONCE, is left for the next time.
    """
    with transaction.atomic(savepoint=False):
        if not _locked("SELECT pg_try_advisory_xact_lock(%s, %s)"):
            return NOTHING
        (row,) = statements.rows("release", {"limit": RELEASED_AT_ONCE})
    return Released(*row)


def hold_up_release() -> None:
    """Until the transaction ends. Waits for the one that runs."""
    _locked("SELECT pg_advisory_xact_lock(%s, %s)")


def _locked(query: str) -> Any:
    """A statement of its own: what follows sees all that the last holder committed."""
    with connection.cursor() as cursor:
        cursor.execute(query, RELEASE_LOCK)
        return cursor.fetchone()[0]
