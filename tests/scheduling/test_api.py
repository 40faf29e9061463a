from datetime import UTC, datetime

import pytest

from scheduling import figures
from tests.api import Client, problem
from tests.helpers import promote, register, running, shell, submit

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch):
    monkeypatch.setattr(figures, "_last", None)


@pytest.fixture
def client():
    return Client("read")


def why(client, task):
    return client.get(f"/api/v1/tasks/{task.pk}/why").json()


def test_why_a_task_waits(client):
    (task,) = submit("true")
    assert why(client, task)["reason"].startswith("No worker is running.")
    register()
    (later,) = submit(shell("true", run_after=datetime(2999, 1, 1, tzinfo=UTC)))
    assert "not due before 2999-01-01" in why(client, later)["reason"]
    promote()
    found = why(client, task)
    assert found["status"] == "queued"
    assert "the next slot that is free takes it" in found["reason"]


def test_a_task_that_does_not_wait_has_no_reason(client):
    (claimed,) = running("true")
    answer = client.get(f"/api/v1/tasks/{claimed.task_id}/why").json()
    assert answer == {"status": "in_progress", "reason": ""}
    problem(client.get("/api/v1/tasks/999999/why"), 404, "not_found")
    problem(client.get(f"/api/v1/tasks/{claimed.task_id}/why?x=1"), 400, "invalid_query")


def test_stats(client):
    running("true")
    submit("true", shell("true", requires=["gpu"]))
    found = client.get("/api/v1/stats").json()
    assert (found["pending"], found["queued"], found["in_progress"]) == (2, 0, 1)
    assert (found["live_workers"], found["stuck"]) == (1, False)
    assert [(lane["requires"], lane["waiting"], lane["slots"]) for lane in found["lanes"]] == [
        ([], 1, 10),
        (["gpu"], 1, 0),
    ]
    assert found["oldest_waiting_at"]
    assert client.get("/api/v1").json()["stats"] == "http://testserver/api/v1/stats"
