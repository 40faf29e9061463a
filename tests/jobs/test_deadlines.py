"""A deadline holds for all attempts of a task and for all its waits."""

from datetime import timedelta

import pytest
from django.utils import timezone

from jobs import queue
from jobs.models import Attempt, Blocked, Deferred, Lease, Ready, Task, Waiting
from jobs.specs import Parent
from jobs.states import Outcome, Status
from scheduling.recovery import Recovery
from tests.helpers import claim, ended, promote, register, running, shell, submit
from tests.webs import step

pytestmark = pytest.mark.django_db

NARROW = (Waiting, Ready, Deferred, Blocked, Lease)


def pass_deadlines() -> None:
    Task.objects.exclude(deadline_at=None).update(
        deadline_at=timezone.now() - timedelta(milliseconds=1)
    )


def test_a_deadline_counts_from_when_a_task_was_submitted_or_may_first_run():
    later = timezone.now() + timedelta(hours=5)
    now, due, never = submit(
        shell("x", deadline_seconds=60), shell("x", deadline_seconds=90, run_after=later), "x"
    )

    assert now.deadline_at == now.created_at + timedelta(seconds=60)
    assert due.deadline_at == later + timedelta(seconds=90)
    assert (now.deadline_seconds, never.deadline_at, never.deadline_seconds) == (60, None, None)


def test_what_waits_past_its_deadline_fails_wherever_it_waits():
    waiting, ready, deferred = submit(
        shell("x", deadline_seconds=60),
        shell("x", deadline_seconds=60, priority=9),
        shell("x", deadline_seconds=60, run_after=timezone.now() + timedelta(hours=1)),
    )
    queue.promote({waiting.lane_id: 1}, batch=1)
    (held,) = submit(shell("x", deadline_seconds=60))
    queue.pause_job(held.job_id)
    parent, child = submit(step("parent"), step("child", "parent", deadline_seconds=60))
    (timely,) = submit(shell("x", deadline_seconds=60))
    late = {task.pk for task in (waiting, ready, deferred, held, child)}
    assert queue.fail_overdue(batch=10) == []
    Task.objects.filter(pk__in=late).update(deadline_at=timezone.now())

    assert set(queue.fail_overdue(batch=10)) == late

    for task in Task.objects.filter(pk__in=late):
        assert (task.status, task.result_text) == ("failed", "deadline passed")
        assert task.completed_at >= task.deadline_at
    left = {pk for model in NARROW for pk in model.objects.values_list("pk", flat=True)}
    assert left == {timely.pk, parent.pk}
    assert queue.fail_overdue(batch=10) == []


def test_many_fail_by_the_batch_the_latest_last():
    tasks = submit(*[shell("x", deadline_seconds=60)] * 5)
    for n, task in enumerate(reversed(tasks)):
        Task.objects.filter(pk=task.pk).update(deadline_at=timezone.now() - timedelta(seconds=n))

    failed = [set(queue.fail_overdue(batch=2)) for _ in range(3)]

    ids = [task.pk for task in tasks]
    assert failed == [set(ids[:2]), set(ids[2:4]), set(ids[4:])]


def test_what_runs_is_left_to_its_worker_and_holds_up_nobody():
    (task,) = running(shell("x", deadline_seconds=60))
    (waiting,) = submit(shell("x", deadline_seconds=60))
    pass_deadlines()
    Task.objects.filter(pk=task.task_id).update(deadline_at=timezone.now() - timedelta(hours=1))

    assert queue.fail_overdue(batch=1) == [waiting.pk]
    assert Task.objects.get(pk=task.task_id).status == "in_progress"


def test_dependents_of_what_waited_too_long_are_told():
    up, under, after = submit(
        step("up", deadline_seconds=60), step("under", "up"), step("after", Parent("up", "run"))
    )
    pass_deadlines()

    assert queue.fail_overdue(batch=10) == [up.pk]
    queue.release()

    under.refresh_from_db()
    assert under.status == Status.CANCELLED
    assert list(Waiting.objects.values_list("pk", flat=True)) == [after.pk]


def test_recovery_fails_what_waited_too_long_from_its_start_on():
    """Unlike leases: no worker had to be given the time to renew anything."""
    (task,) = submit(shell("x", deadline_seconds=60))
    pass_deadlines()

    assert Recovery().tick() == 1
    assert Task.objects.get(pk=task.pk).status == "failed"


@pytest.mark.parametrize(
    ("limits", "seconds"),
    [
        ({"deadline_seconds": 60}, 60),
        ({"deadline_seconds": 60, "timeout_seconds": 100}, 60),
        ({"deadline_seconds": 60, "timeout_seconds": 20}, 20),
        ({"timeout_seconds": 20}, 20),
        ({}, None),
    ],
)
def test_an_attempt_may_take_what_is_left_and_no_longer_than_its_timeout(limits, seconds):
    (task,) = running(shell("x", **limits))

    lease = Lease.objects.get()
    if seconds is None:
        assert (task.timeout_seconds, lease.deadline_at) == (None, None)
    else:
        assert seconds - 5 < task.timeout_seconds <= seconds
        assert lease.deadline_at > lease.claimed_at + timedelta(seconds=seconds)


def test_no_attempt_starts_after_the_deadline():
    worker = register()
    late, timely = submit(shell("x", deadline_seconds=60), shell("x"))
    promote()
    pass_deadlines()

    assert [task.task_id for task in claim(worker)] == [timely.pk]
    assert Task.objects.get(pk=late.pk).status == "queued"


def test_an_attempt_that_its_deadline_ended_is_not_followed_by_another():
    (task,) = running(shell("x", deadline_seconds=60, max_retries=5))
    pass_deadlines()

    states = queue.report([ended(task, Outcome.TIMED_OUT, result="timed out after 2.5 s")])

    assert states == {task.task_id: "failed"}
    assert Task.objects.get().result_text == "deadline passed\ntimed out after 2.5 s"
    assert Attempt.objects.get().outcome == "timed_out"


def test_no_retry_is_put_off_past_the_deadline():
    rules = {"backoff": "fixed", "base_seconds": 100}
    near, far = running(
        shell("x", deadline_seconds=45, max_retries=1, retry=rules),
        shell("x", deadline_seconds=105, max_retries=1, retry=rules),
    )

    states = queue.report([ended(it, Outcome.FAILED, exit_code=1) for it in (near, far)])

    assert states == {near.task_id: "failed", far.task_id: "pending"}
    row = Task.objects.get(pk=near.task_id)
    assert (row.result_text, row.retry_count) == ("deadline too near to try again", 0)
    assert list(Deferred.objects.values_list("pk", flat=True)) == [far.task_id]


def test_what_backs_off_when_its_deadline_passes_keeps_what_its_attempt_said():
    (task,) = running(shell("x", deadline_seconds=60, max_retries=1))
    queue.report([ended(task, Outcome.FAILED, exit_code=1, result="no disk")])
    pass_deadlines()

    queue.fail_overdue(batch=10)

    row = Task.objects.get()
    assert (row.status, row.result_text) == ("failed", "deadline passed\nno disk")
    assert row.exit_code == 1


def test_what_was_done_after_all_is_done():
    (task,) = running(shell("x", deadline_seconds=60))
    pass_deadlines()

    assert queue.report([ended(task, result="hi")]) == {task.task_id: "done"}
    assert Task.objects.get().result_text == "hi"


def test_what_is_lost_after_its_deadline_is_not_tried_again():
    worker = register()
    (task,) = running(shell("x", deadline_seconds=60), worker=worker)
    pass_deadlines()

    assert queue.report([ended(task, Outcome.LOST)]) == {task.task_id: "queued"}
    assert claim(worker) == []
    assert queue.fail_overdue(batch=10) == [task.task_id]


def test_a_persons_retry_gives_the_time_anew():
    (task,) = submit(shell("x", deadline_seconds=60))
    pass_deadlines()
    queue.fail_overdue(batch=10)
    Task.objects.update(created_at=timezone.now() - timedelta(days=1))

    assert queue.retry([task.pk]) == [task.pk]

    row = Task.objects.get()
    assert timedelta(seconds=55) < row.deadline_at - timezone.now() <= timedelta(seconds=60)
    assert queue.fail_overdue(batch=10) == []
