"""Schedules in a chaos run, and what must be true of their firings.

Cron's finest grain is a minute; jitter spreads a minute's firings over all of it, so that they meet
faults of every kind. All times here are the database's wall clock, in seconds since 1970.
"""

import http.client
from collections import Counter
from collections.abc import Iterator, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from dtsproject.chaos.client import CREATED, OK, Http
from dtsproject.chaos.history import Event, History
from dtsproject.chaos.workload import task

if TYPE_CHECKING:
    from dtsproject.chaos.checks import Found, Index

MINUTE = 60
# From its due time on, a firing may take so long where DTS is whole; only then is it paused.
SLACK_SECONDS = 5.0
OVERLAPS = ("allow", "skip", "queue")
# jitter_seconds, catch_up
KINDS = [(0, "all"), (0, "one"), (0, "none"), *[(59, "all")] * 9]
# Under `one` a time is let go once the next has come, under `none` when it is 5 s late.
LET_GO_SECONDS = {"one": MINUTE, "none": 5}


def schedules(seed: int) -> list[dict[str, Any]]:
    """The bodies of POST schedules."""
    random = Random(f"timetable {seed}")  # noqa: S311 - seeded on purpose
    return [
        {
            "name": f"chaos-schedule-{number}",
            "cron": "* * * * *",
            "template": {"name": "{schedule} {timestamp}", "tasks": [task(random)]},
            "overlap": OVERLAPS[number % len(OVERLAPS)],
            "catch_up": catch_up,
            "jitter_seconds": jitter_seconds,
        }
        for number, (jitter_seconds, catch_up) in enumerate(KINDS)
    ]


class Timetable:
    """Makes the schedules before the first fault; pauses them after the last."""

    def __init__(self, url: str, seed: int, history: History) -> None:
        self.http = Http(url)
        self.bodies = schedules(seed)
        self.history = history
        self._running: list[int] = []

    def start(self) -> None:
        for body in self.bodies:
            status, made = self.http.ask("/api/v1/schedules", body)
            if status != CREATED:
                raise OSError(f"a schedule was answered {status}: {made}")
            self.history.add("scheduled", schedule=made["id"], name=made["name"])
            self._running.append(made["id"])

    def stop(self) -> bool:
        """Pauses those that still run; says whether all are paused now."""
        for number in list(self._running):
            try:
                status, _ = self.http.ask(f"/api/v1/schedules/{number}/pause", {})
            except (OSError, http.client.HTTPException, ValueError):
                continue
            if status in (OK, 409):  # the latter: the answer before was lost
                self._running.remove(number)
        return not self._running


def misfired(index: "Index") -> "Found":
    """Each time of a schedule is made once, by one job; none is left out but as it says."""
    made, jobs = index.history.of("firing"), {it["job"]: it for it in index.history.of("job")}
    found = {it["schedule"]: it for it in index.history.of("schedule")}
    for it in index.history.of("scheduled"):
        if it["schedule"] not in found:
            yield f"schedule {it['schedule']} was acknowledged and does not exist", it
    for schedule in found.values():
        of_it = [it for it in made if it["schedule"] == schedule["schedule"]]
        yield from _of_one(schedule, of_it, made)
        yield from _jobs_of_one(schedule, of_it, jobs)
        if schedule["paused_reason"]:
            yield f"{schedule['name']} was paused: {schedule['paused_reason']}", schedule


def _of_one(schedule: Event, of_it: Sequence[Event], made: Sequence[Event]) -> "Found":
    name, times = schedule["name"], Counter(it["scheduled_at"] for it in of_it)
    for time, number in times.items():
        if number > 1:
            yield f"{name} has {number} firings for {time:.0f}", schedule, *of_it
        first = schedule["created_at"] - schedule["jitter_seconds"]
        if time % MINUTE or not first <= time <= schedule["until"]:
            yield f"{name} has no such time as {time:.0f}", schedule, *of_it
    for time in _must_have(schedule):
        if time not in times and not _let_go(schedule, time, made):
            yield f"{name} was not fired for {time}", schedule, *of_it


def _must_have(schedule: Event) -> Iterator[int]:
    """Its times that came for sure after it was made and well before it was paused."""
    time = int(schedule["created_at"] // MINUTE + 1) * MINUTE
    while time + schedule["jitter_seconds"] + SLACK_SECONDS < schedule["until"]:
        yield time
        time += MINUTE


def _let_go(schedule: Event, time: int, made: Sequence[Event]) -> bool:
    """Whether its catch-up may have let the time go: if all schedulers were away for so long."""
    until = time + LET_GO_SECONDS.get(schedule["catch_up"], 0)
    return until > time and not any(
        it["fired_at"] and time <= it["fired_at"] < until for it in made
    )


def _jobs_of_one(schedule: Event, of_it: Sequence[Event], jobs: dict[int, Event]) -> "Found":
    name = schedule["name"]
    wanted = {}
    for it in of_it:
        if it["outcome"] == "fired":
            wanted[it["job"]] = f"{name} {it['scheduled_at']:.0f}"
        elif it["outcome"] != "skipped_overlap":
            yield f"{name} at {it['scheduled_at']:.0f} is {it['outcome']}", it
    stored = {n: it["name"] for n, it in jobs.items() if it["name"].startswith(f"{name} ")}
    for job in wanted.keys() | stored.keys():
        if wanted.get(job) != stored.get(job):
            what = wanted.get(job) or stored.get(job)
            yield f"job {job} of {what} is without its firing, or the other way round", schedule


CHECKS = {"misfired": misfired}
FACTS = {
    "schedule": """
        SELECT extract(epoch FROM created_at)::float8 AS at, id AS schedule, name, jitter_seconds,
            catch_up, extract(epoch FROM created_at)::float8 AS created_at, paused_reason,
            extract(epoch FROM coalesce(paused_at, now()))::float8 AS until
        FROM schedules""",
    "firing": """
        SELECT extract(epoch FROM coalesce(fired_at, scheduled_at))::float8 AS at,
            schedule_id AS schedule, outcome, job_id AS job,
            extract(epoch FROM scheduled_at)::float8 AS scheduled_at,
            extract(epoch FROM fired_at)::float8 AS fired_at
        FROM firings""",
}
# Whether a time has come that no scheduler has dealt with yet.
BEHIND = """
SELECT EXISTS (SELECT FROM schedules WHERE next_run_at <= now())
    OR EXISTS (SELECT FROM firings WHERE outcome = 'waiting')
"""
