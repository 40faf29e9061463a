"""Histories of tasks of one concurrency key, of which two at once are allowed."""

from dtsproject.chaos.workload import SCARCE
from tests.chaos.histories import attempt, lived, moved


def of_the_key(n: int) -> list[dict]:
    """So many tasks, each done between 6.2 and 8."""
    found = []
    for task in range(1, n + 1):
        told = {"event": "task", "at": 8.1, "job": 8, "name": "sleep", "status": "done"}
        moves = [
            moved(6.0, "pending", "queued", 0),
            moved(6.1, "queued", "in_progress", 1),
            lived(6.2 + task / 100, 8.0, 1),
            attempt(8.1, 1, "done"),
            moved(8.1, "in_progress", "done", 1),
            {**told, "generation": 1, "token": 1, "concurrency_key": SCARCE},
        ]
        found += [it | {"task": task} for it in moves]
    return [*found, {"event": "job", "at": 1.4, "job": 8, "name": "chaos-2"}]


def good() -> list[dict]:
    return of_the_key(2)


SPOILT = {"three of a key that allows two": (["more than the limit"], of_the_key(3))}
