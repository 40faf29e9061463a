"""What waits can be reordered; what has started cannot."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from django.db import connection, transaction

from jobs import queue
from jobs.models import AuditEvent, Deferred, Ready, Task, Waiting
from jobs.states import Status
from tests.api import Client, pointers, problem
from tests.helpers import claim, promote, register, running, shell, submit, wait_until

pytestmark = pytest.mark.django_db


@pytest.fixture
def client():
    return Client("operate", name="pat")


def test_what_waits_is_claimed_in_its_new_order():
    worker = register(slots=1)
    first, second, third = submit("1", "2", "3")

    assert queue.prioritise([third.pk], 50) == [third.pk]
    assert queue.prioritise([first.pk], -50) == [first.pk]

    promote()
    promote()
    order = []
    while claimed := claim(worker, 1):
        order += [task.task_id for task in claimed]
        promote()
    assert order == [third.pk, second.pk, first.pk]


def test_its_score_is_what_a_submit_with_that_priority_had_got():
    (early,) = submit("1")
    job = early.job
    (due,) = submit(shell("2", run_after=datetime(2999, 1, 1, tzinfo=UTC)))
    queue.prioritise([early.pk, due.pk], 9)
    early.refresh_from_db()
    made = int(job.created_at.timestamp() * 1_000_000)
    assert early.score == made - 9 * 10**15
    assert Waiting.objects.get(pk=early.pk).score == early.score
    due.refresh_from_db()
    assert Deferred.objects.get(pk=due.pk).score == due.score
    assert due.score == int(due.run_after.timestamp() * 1_000_000) - 9 * 10**15


def test_what_is_queued_goes_back_and_is_promoted_anew():
    worker = register(slots=1)
    first, second = submit("1", "2")
    promote()
    assert Ready.objects.filter(pk=first.pk).exists()

    assert queue.prioritise([first.pk], -1) == [first.pk]

    first.refresh_from_db()
    assert (first.status, first.priority) == (Status.PENDING, -1)
    assert not Ready.objects.filter(pk=first.pk).exists()
    assert [task.task_id for task in claim(worker, 1)] == [second.pk]


def test_what_runs_or_has_ended_is_left_alone():
    (claimed,) = running("1")
    (gone,) = submit("2")
    queue.cancel([gone.pk])
    before = list(Task.objects.order_by("pk").values())

    assert queue.prioritise([claimed.task_id, gone.pk, 10**9], 5) == []

    assert list(Task.objects.order_by("pk").values()) == before


def test_a_task_by_the_api(client):
    (task,) = submit("1")
    answer = client.send(f"/api/v1/tasks/{task.pk}/prioritise", {"priority": 7})
    assert (answer.status_code, answer.json()["priority"]) == (200, 7)
    event = AuditEvent.objects.get()
    assert (event.actor, event.action, event.target) == ("pat", "prioritise", f"task {task.pk}")
    assert event.detail["priority"] == 7


def test_a_job_by_the_api(client):
    one, two, _ = submit("1", "2", "3")
    queue.cancel([two.pk])
    answer = client.send(f"/api/v1/jobs/{one.job_id}/prioritise", {"priority": -3})
    assert answer.status_code == 200
    found = Task.objects.order_by("pk").values_list("priority", flat=True)
    assert list(found) == [-3, 0, -3]
    assert AuditEvent.objects.get().detail == {"priority": -3, "tasks": 2}


@pytest.mark.parametrize(
    ("body", "place"),
    [({}, "#/priority"), ({"priority": 101}, "#/priority"), ({"priority": 1, "x": 1}, "#/x")],
)
def test_bodies_that_name_no_priority(client, body, place):
    (task,) = submit("1")
    for path in (f"tasks/{task.pk}", f"jobs/{task.job_id}"):
        answer = client.send(f"/api/v1/{path}/prioritise", body)
        assert pointers(problem(answer, 400, "invalid")) == [place]


def test_nothing_left_to_reorder(client):
    (claimed,) = running("1")
    for path in (f"tasks/{claimed.task_id}", f"jobs/{claimed.job_id}"):
        answer = client.send(f"/api/v1/{path}/prioritise", {"priority": 1})
        assert problem(answer, 409, "wrong_state")["state"] == "in_progress"
    assert not AuditEvent.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_what_is_promoted_meanwhile_is_not_missed():
    """The promotion has moved its row and not committed yet, when the new priority looks for it."""
    register()
    (task,) = submit("1")
    moved, commit = threading.Event(), threading.Event()

    def promoting():
        with transaction.atomic():
            promote()
            moved.set()
            commit.wait(20)
        connection.close()

    def prioritising():
        found = queue.prioritise([task.pk], 5)
        connection.close()
        return found

    with ThreadPoolExecutor(2) as pool:
        pool.submit(promoting)
        assert moved.wait(20)
        asked = pool.submit(prioritising)
        try:
            wait_until(lambda: blocked() or asked.done())
        finally:
            commit.set()
        assert asked.result(20) == [task.pk]
    task.refresh_from_db()
    assert (task.status, task.priority) == (Status.PENDING, 5)
    assert Waiting.objects.get(pk=task.pk).score == task.score


def blocked() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT FROM pg_locks WHERE NOT granted")
        return cursor.rowcount > 0
