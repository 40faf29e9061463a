"""Nothing of a paused queue starts, and all of it goes on afterwards."""

import pytest

from jobs import queue
from jobs.models import AuditEvent, Lease, Queue, Ready, Task
from jobs.specs import Ending
from jobs.states import Outcome, Status
from scheduling import figures
from tests.api import Client, problem
from tests.helpers import claim, ended, promote, register, submit

pytestmark = pytest.mark.django_db


def test_what_waits_is_not_promoted():
    register()
    submit("1", queue="a")
    submit("2", queue="b")
    assert queue.pause("a")

    assert promote() == 1
    assert Ready.objects.get().task.queue == "b"

    assert queue.resume("a")
    assert promote() == 1


def test_what_is_queued_goes_back_and_keeps_its_order():
    worker = register()
    tasks = submit("1", "2", queue="a")
    promote()
    assert Ready.objects.count() == 2

    queue.pause("a")

    assert not Ready.objects.exists()
    assert set(Task.objects.values_list("status", flat=True)) == {Status.PENDING}
    queue.resume("a")
    promote()
    assert [task.task_id for task in claim(worker)] == [task.pk for task in tasks]


def test_what_comes_back_meanwhile_is_not_claimed():
    worker = register()
    submit("1", queue="a")
    promote()
    (held,) = claim(worker)
    queue.pause("a")
    queue.report([ended(held, Outcome.RELEASED)])
    assert Ready.objects.exists()

    assert claim(worker) == []
    queue.resume("a")
    assert [task.task_id for task in claim(worker)] == [held.task_id]


def test_what_runs_goes_on():
    worker = register()
    submit("1", queue="a")
    promote()
    (held,) = claim(worker)
    queue.pause("a")
    assert Lease.objects.exists()
    done = Ending(held.task_id, held.fencing_token, Outcome.DONE)
    assert queue.report([done]) == {held.task_id: Status.DONE}


def test_it_can_be_filled_and_cancelled_while_paused():
    submit("1", queue="a")
    queue.pause("a")
    (task,) = submit("2", queue="a")
    assert queue.cancel([task.pk]) == {task.pk: Status.CANCELLED}
    assert Queue.objects.get().paused_at


def test_by_the_api(monkeypatch):
    monkeypatch.setattr(figures, "_last", None)
    client = Client("read", "operate", name="pat")
    register()
    (task,) = submit("1", queue="a")
    paused = client.send("/api/v1/queues/a/pause")
    assert (paused.status_code, paused.json()["name"]) == (200, "a")
    assert paused.json()["paused_at"]
    assert client.get("/api/v1/queues/a").json() == paused.json()
    assert client.get("/api/v1/queues").json()["results"] == [paused.json()]
    answer = client.send("/api/v1/queues/a/pause")
    assert problem(answer, 409, "wrong_state")["state"] == "paused"
    reason = client.get(f"/api/v1/tasks/{task.pk}/why").json()["reason"]
    assert reason == "Its queue, a, is paused."
    (lane,) = client.get("/api/v1/stats").json()["lanes"]
    assert (lane["queue"], lane["paused"], lane["stuck"]) == ("a", True, False)
    assert client.send("/api/v1/queues/a/resume").json()["paused_at"] is None
    problem(client.send("/api/v1/queues/a/resume"), 409, "wrong_state")
    found = AuditEvent.objects.order_by("pk").values_list("actor", "action", "detail")
    assert list(found) == [("pat", "pause", {"name": "a"}), ("pat", "resume", {"name": "a"})]


@pytest.mark.parametrize("name", ["nope", "%00", "a b", "%ED%A0%80", "x" * 300])
def test_queues_that_are_not_there(name):
    problem(Client("operate").send(f"/api/v1/queues/{name}/pause"), 404, "not_found")
    problem(Client("read").get(f"/api/v1/queues/{name}"), 404, "not_found")
