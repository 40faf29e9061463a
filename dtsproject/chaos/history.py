"""What happened, as plain events: {"event": ..., "at": CLOCK_BOOTTIME seconds, ...}.

run            seed, seconds
submitted      submission, tasks (how many), kinds, key (its unique one)      the first try
tried          submission, answer (a status, or "unknown: why", or "refused": surely not stored)
acknowledged   submission, job, pause_seconds
held           submission, job, answer      it joined that job (200), or was refused for it (409)
asked          job, what (cancel, retry), answer
ready          answer (whether /readyz says so), when that changes
fault_begin, fault_end    fault, kind, target; `skipped` says why it was not injected
exited         program, status
lived          task, token, attempt, worker, until, ended, code     from its own stamps
moved          task, generation, before, after, token    each change of a task's state
attempt        task, generation, token, outcome, ended_at, worker
task           task, job, name, status, generation, token
job            job, name, key
edge           task, depends_on, on_failure
scheduled      schedule, name     acknowledged; its own times are of the database's wall clock:
schedule       schedule, name, jitter_seconds, catch_up, created_at, until, paused_reason
firing         schedule, scheduled_at, fired_at, outcome, job
left           what, detail       rows or processes that should be gone
"""

import json
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

Event = dict[str, Any]
# The database's wall clock against CLOCK_BOOTTIME here.
CLOCK_ERROR_SECONDS = 0.05


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class History:
    """Any thread may add."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.events = list(events)
        self._lock = threading.Lock()

    def add(self, event: str, *, at: float | None = None, **more: Any) -> None:
        with self._lock:
            self.events.append({"event": event, "at": now() if at is None else at, **more})

    def of(self, event: str) -> list[Event]:
        """The events of one kind, in order of time."""
        with self._lock:
            found = [it for it in self.events if it["event"] == event]
        return sorted(found, key=lambda it: it["at"])

    def write(self, path: Path) -> None:
        """As NDJSON, in order of time."""
        with path.open("w") as file:
            for event in sorted(self.events, key=lambda it: it["at"]):
                file.write(json.dumps(event) + "\n")

    @classmethod
    def read(cls, path: Path) -> "History":
        return cls(json.loads(line) for line in path.read_text().splitlines())


def lives(stamps: Path) -> Iterator[Event]:
    """One event for each attempt that started, from the lines its command wrote (command.py)."""
    found: dict[tuple[int, int], Event] = {}
    for line in stamps.read_text().splitlines() if stamps.exists() else ():
        what, at, task, attempt, token, worker, code = line.split()
        key = int(task), int(token)
        life = found.setdefault(
            key,
            {
                "event": "lived",
                "at": float(at),
                "task": key[0],
                "token": key[1],
                "attempt": int(attempt),
                "worker": worker,
                "until": float(at),
                "ended": False,
                "code": None,
            },
        )
        life["until"] = max(life["until"], float(at))
        if what == "end":
            life |= {"ended": True, "code": int(code)}
    yield from found.values()
