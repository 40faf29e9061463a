"""Histories of schedules: a good one, and each way to spoil it."""

from tests.chaos.histories import change, without


def firing(at, job, **more):
    made = {"schedule": 5, "scheduled_at": at, "fired_at": at + 0.1, "outcome": "fired"}
    return {"event": "firing", "at": at, **made, "job": job, **more}


def job(number, name):
    return {"event": "job", "at": 1.0, "job": number, "name": name}


SCHEDULE = {
    "event": "schedule",
    "at": 30.0,
    "schedule": 5,
    "name": "s",
    "jitter_seconds": 0,
    "catch_up": "all",
    "created_at": 30.0,
    "until": 200.0,
    "paused_reason": "",
}


def good() -> list[dict]:
    """Made at 0:30 and paused at 3:20: fired at 1:00, 2:00 and 3:00, the second time skipped."""
    return [
        {"event": "scheduled", "at": 30.0, "schedule": 5, "name": "s"},
        SCHEDULE,
        firing(60.0, 11),
        firing(120.0, None, outcome="skipped_overlap"),
        firing(180.0, 12),
        job(11, "s 60"),
        job(12, "s 180"),
        job(13, "s2 60"),
    ]


WRONG = "misfired"
SPOILT = {
    "a schedule is gone": ([WRONG], [good()[0]]),
    "a time is left out": ([WRONG], without(good(), "firing", 1)),
    "a time was made twice": (
        [WRONG],
        [*good(), firing(120.0, None, outcome="skipped_overlap")],
    ),
    "a time was made by two jobs": (["one key, one job", WRONG], [*good(), job(14, "s 60")]),
    "a time that never came was made": (
        [WRONG],
        [*good(), firing(90.0, None, outcome="skipped_overlap")],
    ),
    "a time was made before the schedule": (
        [WRONG],
        [*good(), firing(0.0, None, outcome="skipped_overlap")],
    ),
    "a firing has no job": ([WRONG], without(good(), "job")),
    "a job has no firing": ([WRONG], [*good(), job(14, "s 120")]),
    "a firing waits for ever": ([WRONG], change(good(), "firing", 1, outcome="waiting")),
    "a schedule paused itself": ([WRONG], change(good(), "schedule", paused_reason="bad cron")),
}
