"""Of a paused job nothing starts, whatever moves its tasks; resumed, all of it goes on."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.utils import timezone

from jobs import queue
from jobs.models import AuditEvent, Blocked, Deferred, Job, Lease, Ready, Task, Waiting
from jobs.specs import Ending
from jobs.states import Outcome, Status
from tests.api import Client, problem
from tests.helpers import claim, ended, promote, register, shell, submit, wait_until

pytestmark = pytest.mark.django_db


def place_of(task_id: int) -> str:
    """The narrow tables that the task is in."""
    tables = (Waiting, Ready, Deferred, Blocked, Lease)
    return " ".join(t.__name__ for t in tables if t.objects.filter(pk=task_id).exists())


def test_what_waits_or_is_queued_is_put_aside_and_keeps_its_place():
    worker = register(slots=1)
    first, second, third = submit("1", "2", "3")
    (other,) = submit("other")
    promote()
    assert place_of(first.pk) == "Ready"

    assert queue.pause_job(first.job_id)

    assert [place_of(task.pk) for task in (first, second, third)] == ["Blocked"] * 3
    found = Task.objects.filter(job=first.job_id).values_list("status", flat=True)
    assert set(found) == {Status.PENDING}
    promote()
    assert [task.task_id for task in claim(worker)] == [other.pk]
    assert queue.resume_job(first.job_id)
    order = []
    while promote() or Ready.objects.exists():
        order += [task.task_id for task in claim(worker, 1)]
    assert order == [first.pk, second.pk, third.pk]


def test_what_runs_goes_on_and_what_of_it_comes_back_is_put_aside():
    worker = register()
    done, released, lost, failed = submit("1", "2", "3", shell("4", max_retries=1))
    promote()
    held = {task.task_id: task for task in claim(worker)}
    queue.pause_job(done.job_id)
    assert Lease.objects.count() == 4

    outcomes = {done: "done", released: "released", lost: "lost", failed: "failed"}
    endings = [ended(held[task.pk], Outcome(outcome)) for task, outcome in outcomes.items()]
    answer = queue.report(endings)

    assert answer == {task.pk: "done" if task == done else "pending" for task in outcomes}
    assert [place_of(t.pk) for t in outcomes] == ["", "Blocked", "Blocked", "Deferred"]
    found = Task.objects.order_by("pk").values_list("retry_count", flat=True)
    assert list(found) == [0, 0, 0, 1]
    Deferred.objects.update(due_at=timezone.now())
    queue.bring_due(batch=9)
    assert place_of(failed.pk) == "Blocked"
    assert promote() == 0
    queue.resume_job(done.job_id)
    assert promote() == 3


def test_what_comes_due_or_is_retried_is_put_aside():
    register()
    late, gone = submit(shell("1", run_after=timezone.now() + timedelta(hours=1)), "2")
    (other,) = submit(shell("3", run_after=timezone.now() + timedelta(hours=1)))
    queue.cancel([gone.pk])
    queue.pause_job(late.job_id)
    assert place_of(late.pk) == "Deferred"

    Deferred.objects.update(due_at=timezone.now())
    queue.bring_due(batch=9)
    assert queue.retry([gone.pk]) == [gone.pk]

    assert [place_of(t.pk) for t in (late, gone, other)] == ["Blocked", "Blocked", "Waiting"]


def test_while_it_is_paused_it_can_be_reordered_and_cancelled():
    worker = register(slots=1)
    first, second, third = submit("1", "2", "3")
    queue.pause_job(first.job_id)

    assert queue.prioritise([third.pk], 9) == [third.pk]
    assert queue.cancel([first.pk]) == {first.pk: Status.CANCELLED}

    assert place_of(first.pk) == ""
    queue.resume_job(first.job_id)
    promote()
    assert [task.task_id for task in claim(worker, 9)] == [third.pk, second.pk]


def test_what_is_paused_counts_as_pending():
    (task,) = submit("1")
    queue.pause_job(task.job_id)
    client = Client("read")
    assert client.get("/api/v1/stats").json()["pending"] == 1
    assert client.get(f"/api/v1/jobs/{task.job_id}").json()["counts"]["pending"] == 1


def test_a_deleted_job_takes_what_is_paused_with_it():
    (task,) = submit("1")
    queue.pause_job(task.job_id)
    task.job.delete()
    assert not Blocked.objects.exists()


def test_by_the_api():
    client = Client("read", "operate", name="pat")
    (task,) = submit("1")
    job = f"/api/v1/jobs/{task.job_id}"
    paused = client.send(f"{job}/pause")
    assert (paused.status_code, paused.json()["state"]) == (200, "paused")
    assert paused.json()["paused_at"]
    assert client.send(f"{job}/pause").json() == paused.json()
    why = client.get(f"/api/v1/tasks/{task.pk}/why").json()
    assert why == {"status": "pending", "reason": "Its job is paused."}
    resumed = client.send(f"{job}/resume").json()
    assert (resumed["state"], resumed["paused_at"]) == ("pending", None)
    assert client.send(f"{job}/resume").json() == resumed
    found = AuditEvent.objects.order_by("pk").values_list("actor", "action", "target")
    target = f"job {task.job_id}"
    assert list(found) == [("pat", "pause", target), ("pat", "resume", target)]


def test_a_job_that_has_ended_cannot_be_paused():
    (task,) = submit("1")
    queue.cancel([task.pk])
    queue.settle(after=0, limit=9)
    answer = Client("operate").send(f"/api/v1/jobs/{task.job_id}/pause")
    assert problem(answer, 409, "wrong_state")["state"] == "cancelled"
    assert not AuditEvent.objects.exists()


def test_in_the_admin(admin_client):
    (task,) = submit("1")
    page = f"/admin/jobs/job/{task.job_id}/change/"
    assert "Resume" not in admin_client.get(page).content.decode()

    def act(action: str) -> str:
        ids = {"_selected_action": [str(task.job_id)], "_page": "1"}
        answer = admin_client.post("/admin/jobs/job/", {"action": action, **ids}, follow=True)
        return answer.content.decode()

    said = act("pause")
    assert "1 job paused; what runs goes on." in said
    assert "Resume" in said
    assert "0 jobs paused" in act("pause")
    assert (
        "Its job is paused."
        in admin_client.get(f"/admin/jobs/task/{task.pk}/change/").content.decode()
    )
    assert "1 job resumed." in act("resume")
    assert list(AuditEvent.objects.order_by("pk").values_list("action", flat=True)) == [
        "pause",
        "resume",
    ]


# -- two at once -----------------------------------------------------------------------------


def queued() -> tuple[int, Callable[[], object]]:
    (task,) = submit("1")
    register()
    return task.pk, promote


def recalled() -> tuple[int, Callable[[], object]]:
    pk, _ = queued()
    promote()
    lane = Ready.objects.get().lane_id
    return pk, lambda: queue.recall({lane: (-(2**63), -(2**63))})


def reordered() -> tuple[int, Callable[[], object]]:
    pk, _ = queued()
    promote()
    return pk, lambda: queue.prioritise([pk], 5)


def given_back(outcome: str) -> Callable[[], tuple[int, Callable[[], object]]]:
    def make() -> tuple[int, Callable[[], object]]:
        pk, _ = queued()
        promote()
        (held,) = claim(register("w2"))
        ending = Ending(pk, held.fencing_token, Outcome(outcome))
        return pk, lambda: queue.report([ending])

    return make


def retried() -> tuple[int, Callable[[], object]]:
    (task,) = submit("1")
    queue.cancel([task.pk])
    return task.pk, lambda: queue.retry([task.pk])


def due() -> tuple[int, Callable[[], object]]:
    (task,) = submit(shell("1", run_after=timezone.now() + timedelta(hours=1)))
    Deferred.objects.update(due_at=timezone.now())
    return task.pk, lambda: queue.bring_due(batch=9)


MOVES = {
    "promote": queued,
    "recall": recalled,
    "prioritise": reordered,
    "release": given_back("released"),
    "lose": given_back("lost"),
    "retry": retried,
    "due": due,
}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("pause_first", [True, False])
@pytest.mark.parametrize("move", MOVES)
def test_nothing_of_it_can_start_whatever_moves_it_meanwhile(move, pause_first):
    """The first has done its part and not committed when the second begins."""
    pk, verb = MOVES[move]()
    job_id = Job.objects.get().pk
    first, second = lambda: queue.pause_job(job_id), verb
    if not pause_first:
        first, second = second, first

    at_once(first, second)

    assert Job.objects.get().paused_at
    while move == "due" and place_of(pk) == "Deferred":  # it left to the next time what was locked
        queue.bring_due(batch=9)
    assert place_of(pk) == "Blocked"
    assert Task.objects.get().status == Status.PENDING


def at_once(first: Callable[[], object], second: Callable[[], object]) -> None:
    done, commit = threading.Event(), threading.Event()

    def hold_open() -> None:
        with transaction.atomic():
            first()
            done.set()
            commit.wait(20)
        connection.close()

    def follow() -> None:
        second()
        connection.close()

    with ThreadPoolExecutor(2) as pool:
        opened = pool.submit(hold_open)
        assert done.wait(20)
        following = pool.submit(follow)
        try:
            wait_until(lambda: somebody_waits() or following.done())
        finally:
            commit.set()
        opened.result(20)
        following.result(20)


def somebody_waits() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT FROM pg_locks WHERE NOT granted")
        return cursor.rowcount > 0
