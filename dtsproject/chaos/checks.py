"""What must be true of a history. Each check yields breaches; a breach names its task and rows.

Two attempts overlap where a stamp of the older is later than the start of the newer: both lived
then, whatever happened between. What lived on for less than a beat (50 ms) after its last stamp
may go unseen.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from dtsproject.chaos import timetable, webs
from dtsproject.chaos.client import TRY_AGAIN
from dtsproject.chaos.history import CLOCK_ERROR_SECONDS, Event, History
from dtsproject.chaos.schedule import FREEZE, FULL, WORKERS
from dtsproject.chaos.workload import SCARCE, SCARCE_AT_ONCE, SURE
from jobs.states import TERMINAL, TRANSITIONS, Outcome, Status

MAX_LOSSES = 3
# The guard ends what a frozen machine ran as soon as it thaws: the one exception, by name.
THAW_SECONDS = 2.0
# A worker killed while it starts, or whose former boot's guard still kills, is refused its name.
MAY_BE_REFUSED = {(name, 2) for name in WORKERS}
START_SECONDS = 5.0


@dataclass(frozen=True)
class Breach:
    check: str
    subject: str
    rows: list[Event]

    def __str__(self) -> str:
        return f"{self.check}: {self.subject}"


def check(history: History) -> list[Breach]:
    """All breaches, in the order of CHECKS."""
    index = Index(history)
    return [
        Breach(name, subject, list(rows))
        for name, find in CHECKS.items()
        for subject, *rows in find(index)
    ]


class Index:
    """The history by task."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.tasks = {it["task"]: it for it in history.of("task")}
        self.lives = self._by_task("lived")
        self.moves = self._by_task("moved", stable=True)
        self.attempts = self._by_task("attempt")
        self.freezes = list(spans(history, FREEZE))

    def _by_task(self, event: str, *, stable: bool = False) -> dict[int, list[Event]]:
        found = defaultdict(list)
        events = [it for it in self.history.events if it["event"] == event]
        for it in events if stable else sorted(events, key=lambda it: it["token"]):
            found[it["task"]].append(it)
        return found

    def thawing(self, life: Event) -> bool:
        """Whether the attempt lived on only because its whole machine was frozen."""
        return any(
            worker == life["worker"]
            and life["at"] < thawed_at
            and frozen_at < life["until"] < thawed_at + THAW_SECONDS
            for worker, frozen_at, thawed_at in self.freezes
        )


def spans(history: History, kind: str) -> Iterator[tuple[str, float, float]]:
    """Target, begin and end of each fault of this kind; one without an end lasts for ever."""
    ends = {it["fault"]: it["at"] for it in history.of("fault_end")}
    for it in history.of("fault_begin"):
        if it["kind"] == kind and "skipped" not in it:
            yield it["target"], it["at"], ends.get(it["fault"], float("inf"))


Found = Iterable[tuple[Any, ...]]


def lost(index: Index) -> Found:
    """An acknowledged job exists with all its tasks, and each has ended."""
    submitted = {it["submission"]: it for it in index.history.of("submitted")}
    by_job = defaultdict(list)
    for task in index.tasks.values():
        by_job[task["job"]].append(task)
    jobs = {it["job"] for it in index.history.of("job")}
    for it in index.history.of("acknowledged"):
        found, wanted = by_job[it["job"]], submitted[it["submission"]]["tasks"]
        if it["job"] not in jobs:
            yield f"job {it['job']} was acknowledged and does not exist", it
        elif len(found) != wanted:
            yield f"job {it['job']} has {len(found)} of {wanted} tasks", it


def repeated(index: Index) -> Found:
    """One key, one job: however often a submit is sent, and whichever answer is lost."""
    by_name = defaultdict(list)
    for job in index.history.of("job"):
        by_name[job["name"]].append(job)
    for name, jobs in by_name.items():
        if len(jobs) > 1:
            yield f"{name} was stored as jobs {', '.join(str(it['job']) for it in jobs)}", *jobs


def shared(index: Index) -> Found:
    """No unique key is held by two jobs of which tasks live, and who is told of a holder is told of
    one. All times here are of one clock, the database's."""
    jobs = {it["job"]: it for it in index.history.of("job")}
    held: dict[str, list[tuple[float, float, int]]] = defaultdict(list)
    for number, task in index.tasks.items():
        made = jobs.get(task["job"])
        if made and made.get("key"):
            spans_of_task = living(made["at"], index.moves[number])
            held[made["key"]] += [(begin, end, task["job"]) for begin, end in spans_of_task]
    for key, found in held.items():
        until, holder = 0.0, 0
        for begin, end, job in sorted(found):
            if job != holder and begin < until:
                yield f"jobs {holder} and {job} both held {key}", jobs[holder], jobs[job]
            if end > until:
                until, holder = end, job
    keys = {it["submission"]: it.get("key") for it in index.history.of("submitted")}
    for it in index.history.of("held"):
        if jobs.get(it["job"], {}).get("key") != keys[it["submission"]]:
            yield f"job {it['job']} does not have the key of submission {it['submission']}", it


def living(submitted_at: float, moves: Sequence[Event]) -> Iterator[tuple[float, float]]:
    """From when to when a task had not ended, for each of its generations."""
    since, lives = submitted_at, True
    for move in moves:
        if lives and move["after"] in TERMINAL:
            yield since, move["at"]
            lives = False
        elif not lives and move["after"] not in TERMINAL:
            since, lives = move["at"], True
    if lives:
        yield since, float("inf")


def unended(index: Index) -> Found:
    for number, task in index.tasks.items():
        if task["status"] not in TERMINAL:
            yield f"task {number} is still {task['status']}", task


def refused(index: Index) -> Found:
    """A good submit is never refused, and a fault is never answered as a bug."""
    for it in index.history.of("tried"):
        if isinstance(it["answer"], int) and it["answer"] not in TRY_AGAIN:
            yield f"submission {it['submission']} was answered {it['answer']}", it


def overlap(index: Index) -> Found:
    """No two attempts of a task live at once."""
    for number, lives in index.lives.items():
        for older, newer in pairwise(lives):
            if older["until"] > newer["at"] and not index.thawing(older):
                seconds = older["until"] - newer["at"]
                yield f"task {number} lived twice for {seconds:.2f} s", older, newer


def crowded(index: Index) -> Found:
    """No more of a concurrency key than its limit live at once."""
    running: list[Event] = []
    scarce = [number for number, it in index.tasks.items() if it.get("concurrency_key") == SCARCE]
    lives = [life for number in scarce for life in index.lives[number] if not index.thawing(life)]
    for life in sorted(lives, key=lambda it: it["at"]):
        running = [it for it in running if it["until"] > life["at"]] + [life]
        if len(running) > SCARCE_AT_ONCE:
            yield f"{len(running)} of the key {SCARCE} lived at once", *running


def outlived(index: Index) -> Found:
    """An attempt's tree is dead when its end is recorded."""
    for number, lives in index.lives.items():
        ends = {it["token"]: it for it in index.attempts[number]}
        for life in lives:
            end = ends.get(life["token"])
            if not end or index.thawing(life):
                continue
            seconds = life["until"] - end["at"] - CLOCK_ERROR_SECONDS
            if seconds > 0:
                yield f"task {number} lived {seconds:.2f} s after its recorded end", life, end


def ended_twice(index: Index) -> Found:
    """Exactly one terminal state a generation, and only moves that jobs.states allows."""
    for number, moves in index.moves.items():
        ends = defaultdict(list)
        for move in moves:
            before, after = Status(move["before"]), Status(move["after"])
            if after in TERMINAL:
                ends[move["generation"]].append(move)
            if after not in TRANSITIONS[before]:
                yield f"task {number} went from {before} to {after}", move
        for generation, found in ends.items():
            if len(found) > 1:
                yield f"task {number} ended {len(found)} times in generation {generation}", *found
    for number, task in index.tasks.items():
        ended = {it["generation"] for it in index.moves[number] if it["after"] in TERMINAL}
        if task["status"] in TERMINAL and ended != set(range(1, task["generation"] + 1)):
            yield f"task {number} did not end in each generation", task


def endless(index: Index) -> Found:
    """Each claim has exactly one recorded end."""
    for number, task in index.tasks.items():
        attempts = index.attempts[number]
        tokens = [it["token"] for it in attempts]
        if tokens != list(range(1, task["token"] + 1)):
            yield f"task {number} has ends {tokens} for {task['token']} claims", task, *attempts
    for number, lives in index.lives.items():
        recorded = {it["token"] for it in index.attempts[number]}
        for life in lives:
            if life["token"] not in recorded:
                yield f"attempt {life['token']} of task {number} has no end", life


def undone(index: Index) -> Found:
    """`done` means: one done attempt, the last one, whose command came to its own good end."""
    for number, task in index.tasks.items():
        attempts = [it for it in index.attempts[number] if it["generation"] == task["generation"]]
        done = [it for it in index.attempts[number] if it["outcome"] == Outcome.DONE]
        if len(done) != (task["status"] == Status.DONE):
            yield f"task {number} is {task['status']}, done {len(done)} times", task, *attempts
        lives = {it["token"]: it for it in index.lives[number]}
        for attempt in done:
            life = lives.get(attempt["token"])
            if not life or not life["ended"] or life["code"] != 0:
                yield f"task {number} is done, its command is not", attempt, *lives.values()


def failed(index: Index) -> Found:
    """What cannot fail by itself fails only as poison."""
    for number, task in index.tasks.items():
        losses = [it for it in index.attempts[number] if it["outcome"] == Outcome.LOST]
        if task["status"] == Status.FAILED and task["name"] in SURE and len(losses) < MAX_LOSSES:
            yield f"task {number} ({task['name']}) failed", task, *index.attempts[number]


def exited(index: Index) -> Found:
    """Nobody gives up by itself, but a worker that may not or cannot start: it is told to wait."""
    full = list(spans(index.history, FULL))
    for it in index.history.of("exited"):
        name, status, at = it["program"], it["status"], it["at"]
        had_no_disk = any(t == name and a <= at < z + START_SECONDS for t, a, z in full)
        if status >= 0 and not had_no_disk and (name, status) not in MAY_BE_REFUSED:
            yield f"{name} ended with {status}", it


def left(index: Index) -> Found:
    for it in index.history.of("left"):
        yield f"{it['what']}: {it['detail']}", it


CHECKS: dict[str, Callable[[Index], Found]] = {
    "acknowledged and lost": lost,
    "one key, one job": repeated,
    "one key, one live job": shared,
    "not ended": unended,
    "refused": refused,
    "two at once": overlap,
    "more than the limit": crowded,
    "outlived its end": outlived,
    "ended twice": ended_twice,
    "attempt without an end": endless,
    "done": undone,
    "failed": failed,
    **webs.CHECKS,
    **timetable.CHECKS,
    "gave up": exited,
    "left behind": left,
}
