"""The checker itself: a good history passes, and each way to spoil it is found by its check."""

import subprocess
import sys

import pytest

from dtsproject.chaos.checks import CHECKS, check, living
from dtsproject.chaos.history import History, lives, now
from dtsproject.chaos.schedule import FREEZE
from dtsproject.chaos.workload import COMMAND
from tests.chaos import limits, timetable, webs
from tests.chaos.histories import attempt, breaches, change, lived, moved, without


def good() -> list[dict]:
    """A task that lost its first worker at 5 and was done by the next one at 9."""
    return [
        {"event": "submitted", "at": 1.0, "submission": 1, "tasks": 1, "kinds": ["sleep"]},
        {"event": "tried", "at": 1.1, "submission": 1, "answer": 503},
        {"event": "tried", "at": 1.2, "submission": 1, "answer": "unknown"},
        {"event": "acknowledged", "at": 1.5, "submission": 1, "job": 7, "pause_seconds": 0.5},
        {"event": "job", "at": 1.4, "job": 7, "name": "chaos-1"},
        moved(2.0, "pending", "queued", 0),
        moved(2.1, "queued", "in_progress", 1),
        lived(2.2, 4.5, 1, ended=False, code=None),
        {"event": "exited", "at": 4.5, "program": "worker-1", "status": -9},
        attempt(5.0, 1, "lost"),
        moved(5.0, "in_progress", "queued", 1),
        moved(6.0, "queued", "in_progress", 2),
        lived(6.1, 9.0, 2, worker="worker-2"),
        attempt(9.1, 2, "done"),
        moved(9.1, "in_progress", "done", 2),
        {
            "event": "task",
            "at": 9.1,
            "task": 1,
            "job": 7,
            "name": "sleep",
            "status": "done",
            "generation": 1,
            "token": 2,
        },
    ]


@pytest.mark.parametrize("good", [good, webs.good, webs.retried, timetable.good, limits.good])
def test_a_good_history_has_no_breach(good):
    assert breaches(good()) == []


def beside(at: float) -> list[dict]:
    """The same with a unique key, and another job of that key then, which a third joined."""
    ids = {"task": 2, "generation": 1, "token": 1}
    return [
        *change(good(), "job", key="k"),
        {"event": "job", "at": at, "job": 8, "name": "chaos-2", "key": "k"},
        moved(at + 0.1, "pending", "queued", 0, task=2),
        moved(at + 0.2, "queued", "in_progress", 1, task=2),
        lived(at + 0.3, at + 0.4, 1, task=2),
        {"event": "submitted", "at": at, "submission": 3, "tasks": 1, "kinds": [], "key": "k"},
        {"event": "held", "at": at + 0.4, "submission": 3, "job": 8, "answer": 200},
        attempt(at + 0.5, 1, "done") | {"task": 2},
        moved(at + 0.5, "in_progress", "done", 1, task=2),
        {"event": "task", "at": at + 0.5, "job": 8, "name": "sleep", "status": "done", **ids},
    ]


def test_a_key_may_go_from_job_to_job():
    assert breaches(beside(9.11)) == []


def test_a_task_lives_from_its_submit_or_retry_to_its_end():
    moves = [
        moved(2.0, "pending", "queued", 0),
        moved(3.0, "queued", "cancelled", 0),
        moved(5.0, "cancelled", "pending", 0),
        moved(6.0, "pending", "cancelled", 0),
        moved(8.0, "cancelled", "pending", 0),
    ]
    assert list(living(1.0, moves)) == [(1.0, 3.0), (5.0, 6.0), (8.0, float("inf"))]


FROZEN = {"fault": 1, "kind": FREEZE, "target": "worker-1"}
SPOILT = {
    "the job is gone": (["acknowledged and lost"], without(good(), "job")),
    "a task is missing": (["acknowledged and lost"], change(good(), "submitted", tasks=2)),
    "one key made two jobs": (
        ["one key, one job"],
        [*good(), {"event": "job", "at": 1.3, "job": 6, "name": "chaos-1"}],
    ),
    "two jobs held a key": (["one key, one live job"], beside(3.0)),
    "a job held a key just before the other's end": (["one key, one live job"], beside(9.09)),
    "one joined another's job": (
        ["one key, one live job"],
        change(beside(9.2), "submitted", 1, key="other"),
    ),
    "a task still runs": (
        ["not ended", "done"],
        without(change(good(), "task", status="in_progress"), "moved", -1),
    ),
    "a bug was answered": (["refused"], change(good(), "tried", answer=500)),
    "two live at once": (
        ["two at once", "outlived its end"],
        change(good(), "lived", until=6.3),
    ),
    "a tree outlives its end": (["outlived its end"], change(good(), "lived", until=5.3)),
    "it ends twice": (["ended twice", "ended twice"], [*good(), moved(9.5, "done", "done", 2)]),
    "it leaves its end": (["ended twice"], [*good(), moved(9.5, "done", "queued", 2)]),
    "an attempt has no end": (
        ["attempt without an end", "attempt without an end"],
        without(good(), "attempt"),
    ),
    "an end came twice": (["attempt without an end"], [*good(), attempt(9.2, 2, "failed")]),
    "done twice": (["done", "done"], change(good(), "attempt", outcome="done")),
    "done without its command": (["done"], change(good(), "lived", 1, ended=False, code=None)),
    "done with a bad end": (["done"], change(good(), "lived", 1, code=3)),
    "failed without a cause": (
        ["failed"],
        change(
            change(change(good(), "task", status="failed"), "attempt", 1, outcome="failed"),
            "moved",
            -1,
            after="failed",
        ),
    ),
    "somebody gave up": (["gave up"], change(good(), "exited", program="scheduler-1", status=1)),
    "a lease is left": (
        ["left behind"],
        [*good(), {"event": "left", "at": 10.0, "what": "leases", "detail": "task 1"}],
    ),
    **webs.SPOILT,
    **timetable.SPOILT,
    **limits.SPOILT,
}


@pytest.mark.parametrize("case", SPOILT)
def test_each_way_to_spoil_it_is_found(case):
    expected, events = SPOILT[case]
    assert breaches(events) == expected


def test_no_check_is_left_without_a_history_that_breaks_it():
    assert {name for expected, _ in SPOILT.values() for name in expected} == set(CHECKS)


def test_a_frozen_machine_is_the_one_exception_and_only_while_it_thaws():
    events = [
        *change(good(), "lived", until=8.2),
        {"event": "fault_begin", "at": 2.5, **FROZEN},
        {"event": "fault_end", "at": 8.0, **FROZEN},
    ]
    assert breaches(events) == []
    assert "two at once" in breaches(change(events, "fault_begin", target="worker-3"))
    assert "two at once" in breaches(change(events, "fault_end", at=6.0))


def test_what_is_cancelled_on_request_needs_no_other_cause():
    _, events = webs.SPOILT["a task is cancelled and depends on nothing"]
    assert breaches([*events, {"event": "asked", "at": 4.0, "job": 7, "what": "cancel"}]) == []


@pytest.mark.parametrize(("catch_up", "others", "wrong"), [
    ("one", [], False), ("one", [130.0], True),
    ("none", [130.0], False), ("none", [123.0], True), ("all", [], True),
])  # fmt: skip
def test_a_time_is_let_go_only_while_no_scheduler_is_there(catch_up, others, wrong):
    events = change(without(timetable.good(), "firing", 1), "schedule", catch_up=catch_up)
    events += [timetable.firing(60.0, 20, schedule=6, fired_at=at) for at in others]
    assert breaches(events) == (["misfired"] if wrong else [])


def test_an_attempt_lives_from_the_birth_of_its_tree(tmp_path):
    """Its machine may freeze between that and the command's first line."""
    stamps = tmp_path / "stamps"
    who = {"DTS_TASK_ID": "1", "DTS_ATTEMPT": "1", "DTS_FENCING_TOKEN": "1", "CHAOS_WORKER": "w"}
    born_at = now()

    subprocess.run(
        ["/bin/sh", "-c", f"sleep 0.5; {sys.executable} -I -S {COMMAND} quick 0; :"],
        env={**who, "CHAOS_STAMPS": str(stamps)},
        start_new_session=True,
        check=True,
    )

    (life,) = lives(stamps)
    assert born_at - 0.01 <= life["at"] < born_at + 0.4
    assert born_at + 0.5 <= life["until"] <= now()


def test_a_breach_names_its_task_and_shows_its_rows():
    breach, _ = check(History(change(good(), "lived", until=6.3)))
    assert str(breach) == "two at once: task 1 lived twice for 0.20 s"
    assert [row["token"] for row in breach.rows] == [1, 2]


def test_a_history_survives_being_written(tmp_path):
    History(good()).write(tmp_path / "h.ndjson")
    assert check(History.read(tmp_path / "h.ndjson")) == []
    assert [it["at"] for it in History.read(tmp_path / "h.ndjson").events] == sorted(
        it["at"] for it in good()
    )


def test_stamps_become_one_life_an_attempt(tmp_path):
    (tmp_path / "stamps").write_text(
        "start 10.0 5 1 1 worker-1 0\nstart 12.0 5 2 2 worker-2 0\n"
        "beat 10.5 5 1 1 worker-1 0\nend 12.5 5 2 2 worker-2 3\nbeat 12.6 5 2 2 worker-2 0\n"
    )
    first, second = lives(tmp_path / "stamps")
    assert (first["token"], first["at"], first["until"], first["ended"]) == (1, 10.0, 10.5, False)
    # What a daemon left behind by the command still writes counts as the attempt's life.
    assert (second["until"], second["ended"], second["code"]) == (12.6, True, 3)
