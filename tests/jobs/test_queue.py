"""The verbs: what each moves, and what it must refuse to move."""

from contextlib import nullcontext
from datetime import timedelta

import pytest
from django.db import IntegrityError, ProgrammingError, connection, transaction
from django.utils import timezone

from jobs import queue, submission
from jobs.models import Attempt, Deferred, Job, Lane, Lease, Ready, Task, Waiting
from jobs.states import TERMINAL, TRANSITIONS, Outcome, Status
from tests.helpers import claim, ended, promote, register, running, shell, submit

pytestmark = pytest.mark.django_db


def narrow_tables_of(task_id: int) -> list[str]:
    return [
        model.__name__
        for model in (Waiting, Ready, Deferred, Lease)
        if model.objects.filter(pk=task_id).exists()
    ]


def status_of(task_id: int) -> str:
    return Task.objects.values_list("status", flat=True).get(pk=task_id)


# -- submit


def test_a_submitted_task_waits():
    (task,) = submit("true")

    assert task.status == Status.PENDING
    assert task.final_status is None
    assert narrow_tables_of(task.pk) == ["Waiting"]


def test_tasks_keep_the_order_they_were_submitted_in():
    tasks = submit(*(f"echo {n}" for n in range(50)))

    assert [task.payload["cmd"] for task in tasks] == [f"echo {n}" for n in range(50)]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("around", [nullcontext, transaction.atomic])
@pytest.mark.parametrize(
    ("unfit", "error"), [({"kind": None}, IntegrityError), ({"name": object()}, ProgrammingError)]
)
def test_a_job_is_stored_whole_or_not_at_all(monkeypatch, around, unfit, error):
    """Refused by the server or here, alone or within the caller's transaction."""
    monkeypatch.setattr(submission, "BATCH", 1)

    with around(), pytest.raises(error):
        submit("stored first", shell("then refused", **unfit))

    assert not Job.objects.exists()
    assert not Task.objects.exists()
    assert not Waiting.objects.exists()


def test_a_deleted_job_takes_its_tasks_with_it():
    kept, gone = submit("true")[0], submit("true", shell("true"))[0]

    gone.job.delete()

    assert list(Task.objects.values_list("pk", flat=True)) == [kept.pk]
    assert list(Waiting.objects.values_list("pk", flat=True)) == [kept.pk]


def test_a_task_for_later_is_deferred_until_it_is_due():
    (task,) = submit(shell("true", run_after=timezone.now() + timedelta(hours=1)))
    register()

    assert narrow_tables_of(task.pk) == ["Deferred"]
    assert queue.bring_due(batch=10) == 0
    Deferred.objects.update(due_at=timezone.now())
    assert queue.bring_due(batch=10) == 1
    assert narrow_tables_of(task.pk) == ["Waiting"]
    assert promote() == 1


def test_lanes_are_limited_in_number(monkeypatch):
    monkeypatch.setattr(submission, "MAX_LANES", 2)
    submit(shell("true", requires=["a"]), shell("true", requires=["b"]))

    with pytest.raises(queue.TooManyLanes, match="combinations of queue"):
        submit(shell("true", requires=["c"]))

    submit(shell("true", requires=["b", "b"]))
    assert Lane.objects.count() == 2


# -- promote, recall


def test_promotion_follows_priority_then_age_then_job():
    low, high = submit(shell("low", priority=1), shell("high", priority=9))
    (late_high,) = submit(shell("late", priority=9))
    worker = register()
    promote()

    assert [task.task_id for task in claim(worker)] == [high.pk, late_high.pk, low.pk]


def test_nothing_is_promoted_without_a_live_worker_that_serves_the_lane():
    gpu, plain = submit(shell("true", requires=["gpu"]), shell("true"))
    assert promote() == 0
    register("plain")
    assert promote() == 1
    assert (status_of(gpu.pk), status_of(plain.pk)) == (Status.PENDING, Status.QUEUED)

    register("with-gpu", capabilities=["gpu"])
    assert promote() == 1
    assert status_of(gpu.pk) == Status.QUEUED


def test_only_a_window_of_the_backlog_is_queued():
    submit(*["true"] * 100)
    register(slots=2)

    promote()

    assert Ready.objects.count() < 20


def test_urgent_work_recalls_the_window_and_is_claimed_first():
    submit(*[shell("low", priority=1)] * 20)
    worker = register(slots=2)
    promote()
    (urgent,) = submit(shell("urgent", priority=50))

    promote()

    assert claim(worker, 1)[0].task_id == urgent.pk


def test_only_what_is_less_urgent_than_the_head_is_recalled():
    low, high = submit(shell("low", priority=1), shell("high", priority=9))
    register()
    promote()
    (between,) = submit(shell("between", priority=5))

    assert queue.recall({low.lane_id: (between.score, 0)}) == {low.lane_id: 1}

    assert (status_of(low.pk), narrow_tables_of(low.pk)) == (Status.PENDING, ["Waiting"])
    assert (status_of(high.pk), narrow_tables_of(high.pk)) == (Status.QUEUED, ["Ready"])


def test_what_is_overtaken_within_the_window_keeps_its_state():
    """Only its place in line changes, and no wide row is written for that."""
    register(slots=2)
    submit(*[shell("low", priority=1)] * 20)
    promote()
    before = queued()
    assert 0 < len(before) < 20
    urgent = submit(*[shell("urgent", priority=50)] * 2)

    promote()

    after = queued()
    kept = list(before)[:-2]
    assert list(after) == [*(task.pk for task in urgent), *kept]
    assert {pk: after[pk] for pk in kept} == {pk: before[pk] for pk in kept}
    for pk in list(before)[-2:]:
        assert (status_of(pk), narrow_tables_of(pk)) == (Status.PENDING, ["Waiting"])


def test_each_that_overtakes_pushes_out_one():
    """However narrow the window is meanwhile, or seems to this scheduler: claims narrow it."""
    lane = submit(*["low"] * 10)[0].lane_id
    queue.promote({lane: 10}, batch=10)
    (urgent,) = submit(shell("urgent", priority=50))

    queue.promote({lane: -6}, batch=10, overtaken={lane: (urgent.score, 0)})

    assert len(queued()) == 10
    assert next(iter(queued())) == urgent.pk
    assert Task.objects.filter(status=Status.PENDING).count() == 1


def queued() -> dict[int, str]:
    """The version of each queued task's wide row, in the order in which they will be claimed."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT task_id, tasks.ctid::text FROM ready JOIN tasks ON tasks.id = task_id"
            " WHERE status = 'queued' ORDER BY seq"
        )
        return dict(cursor.fetchall())


# -- claim


def test_a_claim_leases_the_task_under_a_new_fencing_token():
    worker = register()
    (task,) = running("true", worker=worker)

    lease = Lease.objects.get(pk=task.task_id)
    row = Task.objects.get(pk=task.task_id)
    assert (task.fencing_token, task.attempt) == (1, 1)
    assert (lease.worker_id, lease.fencing_token) == (worker.pk, 1)
    assert (row.status, row.assigned_worker_id) == (Status.IN_PROGRESS, worker.pk)
    assert narrow_tables_of(task.task_id) == ["Lease"]


@pytest.mark.parametrize("state", ["cordoned", "draining", "lost", "gone"])
def test_only_a_worker_that_is_online_may_claim(state):
    worker = register()
    submit("true")
    promote()
    type(worker).objects.update(state=state)

    assert claim(worker) == []


def test_a_replaced_boot_may_not_claim():
    former = register()
    submit("true")
    promote()
    type(former).objects.update(state="gone")
    register()

    assert claim(former) == []


def test_a_worker_claims_from_its_queues_only():
    submit("true", queue="other")
    register("all")
    promote()

    assert claim(register("picky", queues=["mine"])) == []
    assert len(claim(register("other", queues=["other"]))) == 1


# -- report


def test_a_done_task_is_recorded_once():
    worker = register()
    (task,) = running("true", worker=worker)

    assert queue.report([ended(task, exit_code=0, result="hi")]) == {task.task_id: "done"}

    row = Task.objects.get(pk=task.task_id)
    assert (row.status, row.final_status, row.result_text) == ("done", "done", "hi")
    assert row.completed_at is not None
    assert narrow_tables_of(task.task_id) == []
    attempt = Attempt.objects.get(task_id=task.task_id)
    assert (attempt.outcome, attempt.worker_id, attempt.number) == ("done", worker.pk, 1)


def test_the_same_report_twice_is_answered_twice_and_recorded_once():
    worker = register()
    (task,) = running("true", worker=worker)
    reports = [ended(task)]

    first = queue.report(reports, worker_id=worker.pk)
    second = queue.report(reports, worker_id=worker.pk)

    assert first == second == {task.task_id: "done"}
    assert Attempt.objects.count() == 1


def test_a_stale_token_changes_nothing():
    worker = register()
    (stale,) = running("true", worker=worker)
    queue.report([ended(stale, Outcome.RELEASED)])
    (current,) = claim(worker)

    assert queue.report([ended(stale)], worker_id=worker.pk) == {}

    assert current.fencing_token == stale.fencing_token + 1
    assert status_of(stale.task_id) == Status.IN_PROGRESS
    assert Attempt.objects.filter(outcome="done").count() == 0


def test_another_workers_report_is_refused():
    (task,) = running("true")
    other = register("other")

    assert queue.report([ended(task)], worker_id=other.pk) == {}
    assert status_of(task.task_id) == Status.IN_PROGRESS


def test_a_failure_is_retried_after_a_backoff_and_then_dead():
    worker = register()
    (task,) = running(shell("false", max_retries=1), worker=worker)

    queue.report([ended(task, Outcome.FAILED, exit_code=1)])

    row = Task.objects.get(pk=task.task_id)
    assert (row.status, row.retry_count) == (Status.PENDING, 1)
    assert narrow_tables_of(task.task_id) == ["Deferred"]
    wait = Deferred.objects.get(pk=task.task_id).due_at - row.updated_at
    assert timedelta(seconds=0.5) <= wait <= timedelta(seconds=1)
    Deferred.objects.update(due_at=timezone.now())
    queue.bring_due(batch=1)
    promote()
    (again,) = claim(worker)
    assert queue.report([ended(again, Outcome.FAILED)]) == {task.task_id: "failed"}


def test_released_work_is_first_in_line_and_loses_no_retry():
    worker = register()
    submit(*["true"] * 3)
    promote()
    (task,) = claim(worker, 1)

    queue.report([ended(task, Outcome.RELEASED)])

    row = Task.objects.get(pk=task.task_id)
    assert (row.status, row.retry_count, row.loss_count) == (Status.QUEUED, 0, 0)
    assert row.assigned_worker_id is None
    assert claim(worker, 1)[0].task_id == task.task_id


def test_a_task_under_which_workers_die_three_times_is_poison():
    worker = register()
    submit("kill -9 $PPID")
    promote()
    states = []
    for _ in range(3):
        (task,) = claim(worker)
        states += queue.report([ended(task, Outcome.LOST, error="died")]).values()

    assert states == ["queued", "queued", "failed"]
    assert Task.objects.get().loss_count == 3
    assert Task.objects.get().result_text == "poison: lost too often with its worker"
    assert Attempt.objects.filter(outcome="lost").count() == 3


def test_silence_is_no_proof_of_death_but_not_for_ever():
    """Else a task that kills whole machines, whose workers' names never return, would kill all."""
    worker = register()
    submit("true")
    promote()

    def lose(times):
        for _ in range(times):
            (task,) = claim(worker)
            (state,) = queue.report([ended(task, Outcome.LOST)], proven=False).values()
        return state

    assert lose(29) == "queued"
    assert lose(1) == "failed"
    row = Task.objects.get()
    assert (row.loss_count, row.result_text) == (0, "poison: lost too often with its worker")

    queue.retry([row.pk])
    promote()
    assert lose(29) == "queued"  # a person's retry counts anew


# -- cancel, retry


def test_what_waits_is_cancelled_at_once():
    waiting, ready, deferred = submit(
        shell("a"), shell("b", priority=9), shell("c", run_after=timezone.now() + timedelta(days=1))
    )
    register()
    Ready.objects.all()
    queue.promote({waiting.lane_id: 1}, batch=1)

    left = queue.cancel([waiting.pk, ready.pk, deferred.pk])

    assert set(left.values()) == {"cancelled"}
    for task in (waiting, ready, deferred):
        assert (status_of(task.pk), narrow_tables_of(task.pk)) == ("cancelled", [])


@pytest.mark.parametrize(
    ("outcome", "final"),
    [
        (Outcome.DONE, "done"),
        (Outcome.FAILED, "cancelled"),
        (Outcome.TIMED_OUT, "cancelled"),
        (Outcome.RELEASED, "cancelled"),
        (Outcome.LOST, "cancelled"),
        (Outcome.CANCELLED, "cancelled"),
    ],
)
def test_once_cancel_is_asked_only_done_stands(outcome, final):
    (task,) = running(shell("true", max_retries=5))

    assert queue.cancel([task.task_id]) == {task.task_id: "in_progress"}
    assert queue.report([ended(task, outcome)]) == {task.task_id: final}


def test_an_ended_task_cannot_be_cancelled():
    (task,) = running("true")
    queue.report([ended(task)])

    assert queue.cancel([task.task_id]) == {}
    assert status_of(task.task_id) == "done"


def test_a_retry_opens_a_new_generation_and_keeps_history():
    worker = register()
    (task,) = running("false", worker=worker)
    queue.report([ended(task, Outcome.FAILED)])
    queue.settle(after=0, limit=10)
    assert Job.objects.get().finished_at is not None

    assert queue.retry([task.task_id]) == [task.task_id]

    row = Task.objects.get()
    assert (row.status, row.generation, row.retry_count) == ("pending", 2, 0)
    assert narrow_tables_of(task.task_id) == ["Waiting"]
    assert Job.objects.get().finished_at is None
    promote()
    (again,) = claim(worker)
    assert again.fencing_token > task.fencing_token
    queue.report([ended(again)])
    assert list(Attempt.objects.order_by("pk").values_list("generation", "outcome")) == [
        (1, "failed"),
        (2, "done"),
    ]


def test_done_work_cannot_be_retried():
    (task,) = running("true")
    queue.report([ended(task)])

    assert queue.retry([task.task_id]) == []


# -- settle, and the table's own word


def test_a_job_is_finished_when_its_last_task_ends():
    one, two = running("true", "true")
    queue.report([ended(one)])
    assert queue.settle(after=0, limit=10) == (0, None)
    queue.report([ended(two)])
    assert queue.settle(after=0, limit=10) == (1, None)
    assert Job.objects.get().finished_at is not None


def test_the_table_refuses_nonsense():
    (task,) = submit("true")
    for nonsense in ({"status": "lost"}, {"status": "done"}, {"status": "in_progress"}):
        with pytest.raises(IntegrityError), transaction.atomic():
            Task.objects.filter(pk=task.pk).update(**nonsense)


def test_every_transition_made_is_one_the_state_machine_knows(django_capture_on_commit_callbacks):
    """A trigger records each change of status that a mixed workload makes."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE seen (before text, after text)")
        cursor.execute(
            "CREATE FUNCTION pg_temp.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " INSERT INTO seen VALUES (OLD.status, NEW.status); RETURN NEW; END $$"
        )
        cursor.execute(
            "CREATE TRIGGER note AFTER UPDATE OF status ON tasks FOR EACH ROW"
            " EXECUTE FUNCTION pg_temp.note()"
        )
    worker = register()
    submit(*[shell("x", max_retries=1)] * 8)
    for outcome in [*Outcome, *Outcome]:
        promote()
        tasks = claim(worker, 1)
        queue.report([ended(task, outcome) for task in tasks])
    (urgent,) = submit(shell("urgent", priority=9))
    assert queue.recall({urgent.lane_id: (urgent.score, 0)})
    queue.cancel(Task.objects.live().values_list("pk", flat=True))
    queue.retry(Task.objects.ended().values_list("pk", flat=True))

    with connection.cursor() as cursor:
        cursor.execute("SELECT DISTINCT before, after FROM seen WHERE before <> after")
        seen = set(cursor.fetchall())
    allowed = {(before, after) for before, afters in TRANSITIONS.items() for after in afters}
    assert seen <= allowed
    assert len(seen) >= 8
    assert all(not TRANSITIONS[status] or status != "done" for status in TERMINAL)
