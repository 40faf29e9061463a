"""What becomes of an attempt that failed: by the task's own rules, when, and where."""

from datetime import timedelta

import pytest
from django.utils import timezone

from jobs import queue
from jobs.models import Deferred, Lease, Task
from jobs.states import Outcome
from tests.helpers import claim, ended, promote, register, running, shell, submit
from workers.models import State, Worker

pytestmark = pytest.mark.django_db

TRY_LATER = {"retry_on": [75, 111]}
TIMEOUTS, SIGNALS = {"retry_on": ["timeout"]}, {"retry_on": ["signal"]}
USAGE = {"fail_on": [2]}


def code(number: int) -> dict:
    return {"outcome": Outcome.FAILED, "exit_code": number}


KILLED = {"outcome": Outcome.FAILED, "signal": 9}
NOT_STARTED = {"outcome": Outcome.FAILED, "error": "cannot start"}
TIMED_OUT = {"outcome": Outcome.TIMED_OUT, "exit_code": 75}
LOST = {"outcome": Outcome.LOST}


@pytest.mark.parametrize(
    ("rules", "ending", "state"),
    [
        (None, code(1), "pending"),
        (None, TIMED_OUT, "pending"),
        ({}, KILLED, "pending"),
        (TRY_LATER, code(75), "pending"),
        (TRY_LATER, code(111), "pending"),
        (TRY_LATER, code(7), "failed"),
        (TRY_LATER, code(1), "failed"),
        (TRY_LATER, KILLED, "failed"),
        (TRY_LATER, TIMED_OUT, "failed"),
        (TRY_LATER, NOT_STARTED, "failed"),
        (TRY_LATER, LOST, "queued"),
        (TIMEOUTS, TIMED_OUT, "pending"),
        (TIMEOUTS, code(75), "failed"),
        (TIMEOUTS, KILLED, "failed"),
        (SIGNALS, KILLED, "pending"),
        (SIGNALS, code(9), "failed"),
        (SIGNALS, TIMED_OUT, "failed"),
        (USAGE, code(2), "failed"),
        (USAGE, code(1), "pending"),
        (USAGE, code(22), "pending"),
        (USAGE, KILLED, "pending"),
        (USAGE, TIMED_OUT, "pending"),
        (USAGE, NOT_STARTED, "pending"),
        ({"fail_on": ["timeout"]}, TIMED_OUT, "failed"),
        ({"fail_on": ["timeout"]}, code(75), "pending"),
        ({"fail_on": ["signal", "timeout"]}, KILLED, "failed"),
        ({"fail_on": ["signal"]}, LOST, "queued"),
        ({"retry_on": [75], "fail_on": [2]}, code(75), "pending"),
        ({"retry_on": [75], "fail_on": [2]}, code(3), "failed"),
        ({"retry_on": [75], "fail_on": [2]}, code(2), "failed"),
    ],
)
def test_rules_say_after_what_a_task_is_tried_again(rules, ending, state):
    (task,) = running(shell("x", max_retries=1, retry=rules))

    assert queue.report([ended(task, **ending)]) == {task.task_id: state}

    row = Task.objects.get()
    assert row.retry_count == (state == "pending")
    assert row.result_text == ""


def test_rules_give_no_retry_beyond_max_retries():
    (task,) = running(shell("x", retry=TRY_LATER))
    assert queue.report([ended(task, **code(75))]) == {task.task_id: "failed"}


HOUR = 3600.0
LINEAR = {"backoff": "linear", "base_seconds": 10}
FIXED = {"backoff": "fixed", "base_seconds": 0.5}


@pytest.mark.parametrize(
    ("rules", "retries", "seconds"),
    [
        (None, 0, 1),
        (None, 3, 8),
        (None, 99, HOUR),
        ({"backoff": "exponential"}, 3, 8),
        ({"base_seconds": 20}, 2, 80),
        ({"ceiling_seconds": 5}, 3, 5),
        ({"base_seconds": 20, "ceiling_seconds": 50}, 0, 20),
        ({"base_seconds": 20, "ceiling_seconds": 50}, 2, 50),
        (LINEAR, 0, 10),
        (LINEAR, 1, 20),
        (LINEAR, 9, 100),
        (LINEAR | {"ceiling_seconds": 35}, 9, 35),
        (FIXED, 0, 0.5),
        (FIXED, 50, 0.5),
        ({"base_seconds": 0}, 99, 0),
    ],
)
def test_the_wait_is_bounded_by_the_kind_of_backoff_and_half_random(rules, retries, seconds):
    tasks = running(*[shell("x", max_retries=100, retry=rules)] * 10)
    for model in (Lease, Task):
        model.objects.update(retry_count=retries)

    queue.report([ended(task, **code(1)) for task in tasks])

    now = Task.objects.first().updated_at
    waits = [(it.due_at - now).total_seconds() for it in Deferred.objects.all()]
    assert len(waits) == 10
    assert seconds / 2 <= min(waits) <= max(waits) <= seconds
    if seconds:
        assert len(set(waits)) > 5


# -- elsewhere


def failed_once(worker, rules: dict | None) -> int:
    """A task that failed on this worker, and is ready again."""
    (task,) = running(shell("x", max_retries=3, retry=rules), worker=worker)
    queue.report([ended(task, **code(1))])
    ready_again()
    return task.task_id


def ready_again() -> None:
    Deferred.objects.update(due_at=timezone.now())
    queue.bring_due(batch=10)
    promote()


def test_what_failed_on_a_worker_is_left_to_another_first():
    here, there = register("here"), register("there")
    pk = failed_once(here, {"elsewhere": True})
    (other,) = submit("another's")
    promote()

    assert [task.task_id for task in claim(here)] == [other.pk]
    assert [task.task_id for task in claim(there)] == [pk]


def test_a_hint_is_no_ban():
    """Nobody else takes it, so after a while the same worker does."""
    here = register("here")
    register("busy elsewhere")
    pk = failed_once(here, {"elsewhere": True})
    assert claim(here) == []

    Task.objects.update(
        updated_at=timezone.now() - timedelta(seconds=queue.ELSEWHERE_SECONDS + 0.1)
    )

    assert [task.task_id for task in claim(here)] == [pk]


def test_the_hint_names_the_worker_of_the_last_failure_only():
    here, there = register("here"), register("there")
    failed_once(here, {"elsewhere": True})
    (task,) = claim(there)
    queue.report([ended(task, **code(1))])
    ready_again()
    assert claim(there) == []
    (task,) = claim(here)
    queue.report([ended(task, Outcome.RELEASED)])

    assert len(claim(here)) == 1


@pytest.mark.parametrize("rules", [None, {"elsewhere": False}, {"base_seconds": 1}])
def test_without_the_hint_the_same_worker_may_take_it_at_once(rules):
    here = register("here")
    register("there")
    pk = failed_once(here, rules)

    assert [task.task_id for task in claim(here)] == [pk]


@pytest.mark.parametrize(
    "other",
    [None, {"state": State.DRAINING}, {"last_heartbeat": timezone.now() - timedelta(hours=1)}],
)
def test_where_there_is_no_other_worker_nobody_waits_for_one(other):
    here = register("here")
    if other:
        register("there")
        Worker.objects.filter(name="there").update(**other)
    pk = failed_once(here, {"elsewhere": True})

    assert [task.task_id for task in claim(here)] == [pk]
