"""The numbers of the overview, and why a task waits."""

from datetime import timedelta

import pytest
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from jobs import queue
from jobs.models import Attempt, Deferred, Task
from jobs.states import Outcome
from scheduling import figures
from scheduling.explain import why
from scheduling.lanes import queueing
from tests.helpers import claim, ended, promote, register, running, shell, submit
from workers.models import Worker

pytestmark = pytest.mark.django_db


def long_ago(*tasks: Task, seconds: float = 60) -> None:
    """Lets these tasks have been here for a while."""
    past = Now() - timedelta(seconds=seconds)
    Task.objects.filter(pk__in=[t.pk for t in tasks]).update(created_at=past, updated_at=past)


def test_an_empty_queue_has_figures_too():
    found = figures.take()
    assert not any([found.pending, found.queued, found.running, found.failed_in_an_hour])
    assert found.done_per_minute == 0
    assert found.oldest_waiting_at is None
    assert (found.workers, found.failures, found.jobs, found.lanes) == ([], [], [], [])


def test_every_state_is_counted():
    worker = register(slots=2)
    submit("a", "b", "c", "d", "e", "f", shell("g", run_after=timezone.now() + timedelta(hours=1)))
    promote()
    done, failed, _ = claim(worker, 3)
    queue.report([ended(done), ended(failed, Outcome.FAILED, error="no disk")])
    found = figures.take()
    queued = Task.objects.filter(status="queued").count()
    assert found.queued.value == queued
    assert found.running.value == 1
    assert found.pending.value == 7 - 3 - queued
    assert found.failed_in_an_hour.value == 1
    assert found.done_per_minute == pytest.approx(1 / 5)
    assert [(task.pk, task.error) for task in found.failures] == [(failed.task_id, "no disk")]
    assert [job.state for job in found.jobs] == ["in_progress"]
    assert [(w.name, w.busy) for w in found.workers] == [("w1", 1)]


def test_the_rate_is_over_the_time_that_the_newest_attempts_cover(monkeypatch):
    worker = register()
    for claimed in running(*["true"] * 8, worker=worker):
        queue.report([ended(claimed)])
    Attempt.objects.update(ended_at=Now() - timedelta(seconds=60))
    monkeypatch.setattr(figures, "RECENT_ATTEMPTS", 8)
    assert figures.done_per_minute() == pytest.approx(8, rel=0.05)


def test_old_failures_are_shown_but_not_counted_as_of_this_hour():
    (claimed,) = running("false")
    queue.report([ended(claimed, Outcome.FAILED)])
    Task.objects.update(completed_at=Now() - timedelta(hours=2))
    found = figures.take()
    assert not found.failed_in_an_hour
    assert len(found.failures) == 1


def test_the_oldest_that_could_run_is_found():
    young, old, later = submit("a", "b", shell("c", run_after=timezone.now() + timedelta(hours=1)))
    long_ago(young, old, later, seconds=300)
    age = timezone.now() - figures.take().oldest_waiting_at
    assert age.total_seconds() == pytest.approx(300, abs=30)


def test_viewers_share_the_figures_for_a_second(monkeypatch):
    monkeypatch.setattr(figures, "_last", None)
    first = figures.figures()
    with CaptureQueriesContext(connection) as found:
        assert figures.figures() is first
    assert len(found) == 0
    monkeypatch.setattr(figures, "CACHED_SECONDS", -1)
    assert figures.figures() is not first


def test_the_figures_ask_as_often_for_one_row_as_for_two_hundred():
    def asked() -> int:
        with CaptureQueriesContext(connection) as found:
            figures.take()
        return len(found)

    worker = register(slots=300)
    (claimed,) = running("true", worker=worker)
    queue.report([ended(claimed, Outcome.FAILED)])
    submit("true")
    before = asked()
    for n in range(20):
        submit(*["true"] * 20)
        register(f"more{n}")
    promote()
    queue.report([ended(task, Outcome.FAILED) for task in claim(worker, 100)])
    submit("true")
    assert asked() == before <= 15


def test_no_figure_scans_the_tasks():
    submit(*["true"] * 500)
    with CaptureQueriesContext(connection) as found:
        figures.take()
    asked = [q["sql"] for q in found if q["sql"].lstrip("-").strip() and "tasks" in q["sql"]]
    assert asked
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE tasks")
        cursor.execute("SET LOCAL enable_seqscan = off")
        for sql in asked:
            cursor.execute("EXPLAIN " + sql)
            plan = "\n".join(line for (line,) in cursor.fetchall())
            assert "Seq Scan on tasks" not in plan, f"{sql}\n{plan}"


# -- what needs a person ---------------------------------------------------------------------


def test_a_lane_without_a_worker_is_named():
    register(capabilities=["gpu"])
    submit("true")
    submit(shell("train", requires=["fpga"]), queue="bio")
    (entry,) = [entry for entry in queueing() if not entry.slots]
    assert (str(entry.lane), entry.waiting.value, entry.stuck) == ("bio fpga", 1, False)


def test_a_scheduler_that_does_not_run_is_noticed():
    register()
    (task,) = submit("true")
    assert not queueing()[0].stuck
    long_ago(task)
    assert queueing()[0].stuck
    promote()
    assert queueing() == []


def test_a_long_queue_is_no_sign_of_a_missing_scheduler():
    register(slots=1)
    tasks = submit(*["true"] * 9)
    promote()
    long_ago(*tasks)
    (entry,) = queueing()
    assert not entry.stuck


def test_due_tasks_that_nobody_lets_go_on_are_noticed():
    register()
    submit(shell("true", run_after=timezone.now() + timedelta(hours=1)))
    assert not figures.take().stuck
    Deferred.objects.update(due_at=Now() - timedelta(seconds=60))
    assert figures.take().stuck
    assert "nothing is promoted" in reason(Task.objects.get())


# -- why -------------------------------------------------------------------------------------


def reason(task: Task) -> str:
    task.refresh_from_db()
    return why(task)


def test_why_not_due():
    (task,) = submit(shell("true", run_after=timezone.now() + timedelta(hours=1)))
    assert reason(task).startswith("It is not due before 20")


def test_why_backing_off():
    (claimed,) = running(shell("false", max_retries=1))
    queue.report([ended(claimed, Outcome.FAILED, exit_code=75)])
    said = "Attempt 1 failed with exit code 75; it is tried again at 20"
    assert reason(Task.objects.get()).startswith(said)


def test_why_no_worker():
    (task,) = submit(shell("true", requires=["gpu"]), queue="ml")
    start = "Start one: manage.py run_worker --capabilities gpu --queues ml"
    assert reason(task) == f"No worker is running. {start}"
    register()
    assert reason(task) == "No live worker offers gpu."
    Worker.objects.update(capabilities=["gpu"])
    assert reason(task) == "It comes next in its lane, ml gpu."


def test_why_no_scheduler():
    register()
    (task,) = submit("true")
    long_ago(task)
    assert "nothing is promoted" in reason(task)


def test_why_behind_others():
    worker = register(slots=1)
    tasks = submit(*["true"] * 6)
    promote()
    first, second, last = tasks[0], tasks[1], tasks[-1]
    assert reason(first) == "It comes next; the next slot that is free takes it."
    assert reason(second) == "1 task comes before it; the next slot that is free takes it."
    assert reason(last) == "5 tasks come before it in its lane, default."
    claim(worker, 1)
    assert reason(first) == ""
    assert reason(last) == "4 tasks come before it in its lane, default."
