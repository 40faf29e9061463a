"""Who is compared: DTS, its rivals, and the reference. Each has an adapter in rivals/."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import install

HERE = Path(__file__).parent
ROOT = HERE.parent
REFERENCE = "ref"
FAST, SLOW = 200_000, 20_000


def own_python(name: str) -> str:
    """DTS and the reference run with what DTS itself is installed with."""
    return sys.executable


@dataclass(frozen=True, kw_only=True)
class Peer:
    """`tasks`: of a whole drain. `less`: what it does less for a task than DTS does."""

    name: str
    title: str
    program: Callable[[str], str] = own_python
    suffix: str = "py"
    tasks: int = FAST
    less: str = ""

    def command(self, *arguments: object) -> list[str]:
        adapter = HERE / "rivals" / f"{self.name}.{self.suffix}"
        # -P: its own folder would shadow the package that an adapter is named after.
        safely = ["-P"] if self.suffix == "py" else []
        return [self.program(self.name), *safely, str(adapter), *map(str, arguments)]


PEERS = [
    Peer(
        name=REFERENCE,
        title="bare SQL (psycopg)",
        less="three states in one narrow table: no scheduler step, no lease or fencing token, no "
        "attempts, no result, nothing that recovers a lost worker's tasks",
    ),
    Peer(name="dts", title="DTS"),
    Peer(
        name="pgqueuer",
        title="pgqueuer",
        program=install.python,
        less="the task's row is deleted at its end (a log row stays); no result, no fencing token, "
        "no scheduler step",
    ),
    Peer(
        name="graphile",
        title="graphile-worker",
        program=install.node,
        suffix="mjs",
        less="the task's row is deleted at its end: no history, no result; ends are written in "
        "batches after the fact; a lost worker's tasks come back after 4 hours; no fencing token",
    ),
    Peer(
        name="procrastinate",
        title="procrastinate",
        program=install.python,
        tasks=SLOW,
        less="no scheduler step, no fencing token, no result; it does keep the row and an event "
        "for each change of its state",
    ),
    Peer(
        name="django_tasks_db",
        title="django-tasks-db",
        program=install.python,
        tasks=SLOW,
        less="no scheduler step, no lease: a lost worker's tasks stay as they are; no retries, no "
        "attempts",
    ),
]
BARE, DTS = PEERS[0], PEERS[1]
NAMES = [peer.name for peer in PEERS]
