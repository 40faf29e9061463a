"""Workers come, renew and are found silent; each guard of a lease has its test."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection, connections, transaction
from django.utils import timezone

from jobs import queue
from jobs.models import Attempt, Lease, Task
from jobs.states import Outcome
from tests.helpers import claim, ended, promote, register, running, submit, wait_until
from workers import registry
from workers.models import State, Worker

pytestmark = pytest.mark.django_db


def age(worker, *, heartbeat_seconds=0, claims_seconds=0):
    now = timezone.now()
    Worker.objects.filter(pk=worker.pk).update(
        last_heartbeat=now - timedelta(seconds=heartbeat_seconds)
    )
    Lease.objects.filter(worker=worker).update(claimed_at=now - timedelta(seconds=claims_seconds))


def held(*tasks):
    return {task.task_id: task.fencing_token for task in tasks}


def test_a_second_live_worker_of_the_same_name_is_refused():
    register("w1")

    with pytest.raises(registry.NameTaken, match="another --name"):
        register("w1", machine_id="m2")


def test_a_name_is_free_when_its_worker_left_or_fell_silent():
    worker = register("w1")
    registry.leave(worker.pk, worker.boot_id)
    again = register("w1")
    assert (again.pk, again.state) == (worker.pk, State.ONLINE)
    age(again, heartbeat_seconds=31)
    assert register("w1").boot_id != again.boot_id


def test_registering_twice_with_one_boot_id_is_the_same_worker():
    boot_id = uuid.uuid4()
    assert register("w1", boot_id=boot_id).pk == register("w1", boot_id=boot_id).pk


def test_a_provably_dead_boot_gives_back_at_once_what_it_held():
    former = register("w1")
    (task,) = running("true", worker=former)

    register("w1", former_boot_dead=True)

    row = Task.objects.get()
    assert (row.status, row.loss_count) == ("queued", 1)
    assert queue.report([ended(task)], worker_id=former.pk) == {}


def test_proof_from_another_machine_is_none():
    former = register("w1", machine_id="m1")
    running("true", worker=former)

    with pytest.raises(registry.NameTaken):
        register("w1", machine_id="m2", former_boot_dead=True)

    assert Lease.objects.count() == 1


def test_a_heartbeat_tells_what_was_lost_and_what_to_cancel():
    worker = register()
    kept, cancelled, lost = running("a", "b", "c", worker=worker)
    queue.cancel([cancelled.task_id])
    queue.report([ended(lost, Outcome.LOST)], proven=False)

    beat = registry.heartbeat(worker.pk, worker.boot_id, held(kept, cancelled, lost))

    assert (beat.lost, beat.cancelled) == ([lost.task_id], [cancelled.task_id])
    assert beat.state == State.ONLINE


def test_a_heartbeat_of_a_former_boot_renews_nothing():
    former = register()
    age(former, heartbeat_seconds=31)
    register()

    with pytest.raises(registry.Superseded):
        registry.heartbeat(former.pk, former.boot_id, {})


def test_a_lease_not_named_is_given_back_only_after_its_own_time():
    worker = register()
    (task,) = running("true", worker=worker)

    registry.heartbeat(worker.pk, worker.boot_id, {})
    assert Task.objects.get().status == "in_progress"
    age(worker, claims_seconds=31)
    registry.heartbeat(worker.pk, worker.boot_id, {})
    row = Task.objects.get()
    assert (row.status, row.loss_count) == ("queued", 0)
    assert claim(worker)[0].task_id == task.task_id


def test_a_lease_that_is_named_is_never_taken_however_old():
    worker = register()
    (task,) = running("true", worker=worker)
    age(worker, claims_seconds=10_000)

    registry.heartbeat(worker.pk, worker.boot_id, held(task))
    registry.recover_silent()

    assert Task.objects.get().status == "in_progress"


def test_a_silent_workers_work_is_queued_again_and_its_late_report_refused():
    worker = register()
    (task,) = running("true", worker=worker)
    age(worker, heartbeat_seconds=31, claims_seconds=31)

    lost, recovered = registry.recover_silent()

    assert lost == [worker.pk]
    assert recovered == {task.task_id: "queued"}
    assert queue.report([ended(task)], worker_id=worker.pk) == {}
    attempt = Attempt.objects.get()
    assert (attempt.outcome, attempt.error) == ("lost", "its worker went silent")


def test_a_claim_younger_than_a_lease_is_not_taken_with_its_silent_worker():
    worker = register()
    running("true", worker=worker)
    age(worker, heartbeat_seconds=31, claims_seconds=5)

    assert registry.recover_silent() == ([worker.pk], {})
    age(worker, heartbeat_seconds=60, claims_seconds=31)
    assert len(registry.recover_silent()[1]) == 1


def test_a_lost_worker_that_is_heard_of_again_is_online():
    worker = register()
    age(worker, heartbeat_seconds=31)
    registry.recover_silent()
    assert Worker.objects.get().state == State.LOST

    assert registry.heartbeat(worker.pk, worker.boot_id, {}).state == State.ONLINE


def waiting_for_a_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return cursor.fetchone()[0] > 0


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("state", [State.ONLINE, State.LOST])
def test_a_worker_heard_of_while_recovery_looks_keeps_its_work(state):
    worker = register()
    (task,) = running("true", worker=worker)
    age(worker, heartbeat_seconds=31, claims_seconds=31)
    Worker.objects.update(state=state)

    def recover():
        try:
            return registry.recover_silent()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            registry.heartbeat(worker.pk, worker.boot_id, held(task))
            recovery = pool.submit(recover)
            wait_until(lambda: recovery.done() or waiting_for_a_lock())

        assert recovery.result(10) == ([], {})

    assert Worker.objects.get().state == State.ONLINE
    assert Task.objects.get().status == "in_progress"


def test_an_attempt_past_its_deadline_fails_though_its_worker_lives():
    worker = register()
    (task,) = running("true", worker=worker)
    assert queue.expire() == {}
    Lease.objects.update(deadline_at=timezone.now() - timedelta(seconds=1))

    assert queue.expire() == {task.task_id: "failed"}
    assert Attempt.objects.get().outcome == "timed_out"


def test_drain_cordon_and_uncordon():
    worker = register()
    everyone = Worker.objects.all()
    assert (registry.cordon(everyone), registry.cordon(everyone)) == (1, 0)
    submit("true")
    promote()
    assert claim(worker) == []
    assert registry.uncordon(everyone) == 1
    assert registry.drain(everyone) == 1
    beat = registry.heartbeat(worker.pk, worker.boot_id, {})
    assert beat.state == State.DRAINING
