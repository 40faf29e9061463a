from datetime import UTC, datetime

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from jobs import queue
from jobs.api.payloads import MAX_ARGUMENT_BYTES
from jobs.api.submissions import job_spec
from jobs.models import AuditEvent, Job, Task
from jobs.specs import TaskSpec
from jobs.states import Outcome, Status
from tests.api import JOB, Client, problem
from tests.helpers import claim, ended, promote, register, submit

pytestmark = pytest.mark.django_db


@pytest.fixture
def client():
    return Client("read", "submit", "operate", name="ci")


def test_the_job_of_the_readme(client):
    body = {
        "name": "demo-batch",
        "tasks": [
            {"payload": {"cmd": "echo low"}, "priority": 10},
            {"payload": {"cmd": "echo HIGH"}, "priority": 90},
        ],
    }
    answer = client.send("/api/v1/jobs", body)
    assert answer.status_code == 201
    made = answer.json()
    assert answer["Location"] == f"/api/v1/jobs/{made['id']}"
    assert (made["name"], made["state"], made["submitted_by"]) == ("demo-batch", "pending", "ci")
    assert made["counts"] == {s: 2 if s == "pending" else 0 for s in Status.values}
    assert made.pop("warnings") == []
    assert client.get(answer["Location"]).json() == made
    tasks = client.get(f"{answer['Location']}/tasks").json()["results"]
    assert [(t["payload"]["cmd"], t["priority"]) for t in tasks] == [
        ("echo HIGH", 90),
        ("echo low", 10),
    ]


def test_a_whole_number_may_be_written_with_a_point():
    body = {"name": "a", "tasks": [{"payload": {"cmd": "x"}, "priority": 5.0}]}
    made = Client("submit").send("/api/v1/jobs", body)
    assert Task.objects.get(job=made.json()["id"]).priority == 5


def test_every_field_of_a_task_is_kept(client):
    shell = {
        "name": "build",
        "kind": "shell",
        "payload": {"cmd": "make", "env": {"CI": "1"}, "cwd": "/srv", "stdin": "yes\n"},
        "priority": -100,
        "requires": ["gpu", "arch=arm64"],
        "slots": 3,
        "run_after": "2099-01-01T01:00:00+01:00",
        "timeout_seconds": 0.5,
        "max_retries": 100,
        "retry": {
            "backoff": "fixed",
            "base_seconds": 0,
            "ceiling_seconds": 0.5,
            "retry_on": [255, "timeout"],
            "fail_on": [1, "signal"],
            "elsewhere": False,
        },
        "deadline_seconds": 90,
    }
    python = {
        "kind": "python",
        "payload": {
            "function": "ops.reports.run",
            "args": [1, None],
            "kwargs": {"deep": {"a": []}},
        },
    }
    body = {
        "name": " padded ",
        "queue": "nightly",
        "labels": {"team": ""},
        "tasks": [shell, python],
    }
    made = client.send("/api/v1/jobs", body).json()
    assert (made["name"], made["queue"], made["labels"]) == (" padded ", "nightly", {"team": ""})
    second, first = client.get(f"/api/v1/tasks?job={made['id']}").json()["results"]
    kept = {**shell, "run_after": "2099-01-01T00:00:00Z", "requires": ["arch=arm64", "gpu"]}
    assert {name: first[name] for name in shell} == kept
    assert first["deadline_at"] == "2099-01-01T00:01:30Z"
    assert second["payload"] == python["payload"]
    assert (second["retry"], second["deadline_at"]) == (None, None)
    assert Task.objects.get(pk=first["id"]).run_after == datetime(2099, 1, 1, tzinfo=UTC)


def test_a_command_of_the_greatest_length(client):
    body = {"name": "a", "tasks": [{"payload": {"cmd": "x" * MAX_ARGUMENT_BYTES}}]}
    assert client.send("/api/v1/jobs", body).status_code == 201


def test_what_is_left_out_takes_the_defaults_of_the_specs():
    (task,) = job_spec(JOB).tasks
    assert task == TaskSpec(payload={"cmd": "true"})
    assert job_spec(JOB).queue == "default"


def test_state_and_counts_follow_the_tasks(client):
    worker = register()
    tasks = submit("a", "b", "c")
    path = f"/api/v1/jobs/{tasks[0].job_id}"
    promote()
    held = claim(worker, 2)
    assert client.get(path).json()["state"] == "in_progress"
    queue.report([ended(held[0]), ended(held[1], Outcome.FAILED)], worker_id=worker.pk)
    found = client.get(path).json()
    assert found["state"] == "queued"
    assert found["counts"] == {
        "pending": 0,
        "queued": 1,
        "in_progress": 0,
        "done": 1,
        "failed": 1,
        "cancelled": 0,
    }
    queue.report([ended(task) for task in claim(worker)], worker_id=worker.pk)
    assert client.get(path).json()["state"] == "failed"
    assert client.get("/api/v1/jobs").json()["results"][0]["state"] == "failed"


def test_cancel_and_retry_a_job(client):
    tasks = submit("a", "b")
    path = f"/api/v1/jobs/{tasks[0].job_id}"
    cancelled = client.send(f"{path}/cancel")
    assert cancelled.status_code == 200
    assert cancelled.json()["state"] == "cancelled"
    assert cancelled.json()["cancelled_at"]
    again = problem(client.send(f"{path}/cancel"), 409, "wrong_state")
    assert again["state"] == "cancelled"
    assert client.send(f"{path}/retry").json()["counts"]["pending"] == 2
    problem(client.send(f"{path}/retry"), 409, "wrong_state")
    events = AuditEvent.objects.order_by("pk").values_list("actor", "action", "target", "source")
    target = f"job {tasks[0].job_id}"
    assert list(events) == [
        ("ci", "cancel", target, "127.0.0.1"),
        ("ci", "retry", target, "127.0.0.1"),
    ]
    assert AuditEvent.objects.first().detail == {"tasks": 2}


def test_a_refused_cancel_marks_nothing(client):
    worker = register()
    (task,) = submit("a")
    promote()
    queue.report([ended(held) for held in claim(worker)], worker_id=worker.pk)
    problem(client.send(f"/api/v1/jobs/{task.job_id}/cancel"), 409, "wrong_state")
    assert Job.objects.get().cancelled_at is None
    assert not AuditEvent.objects.exists()


def test_lists_page_newest_first_and_meet_every_row_once(client):
    ids = {submit("true", name=f"job {n}")[0].job_id for n in range(7)}
    seen, path = [], "/api/v1/jobs?limit=3"
    pages = 0
    while path:
        page = client.get(path).json()
        seen += [job["id"] for job in page["results"]]
        path, pages = page["next"], pages + 1
    assert seen == sorted(ids, reverse=True)
    assert pages == 3
    back = client.get(page["previous"]).json()
    assert [job["id"] for job in back["results"]] == seen[3:6]


def test_filters_of_jobs(client):
    submit("true", name="a", queue="q1")
    b = submit("true", name="b", queue="q2")[0].job
    assert [j["name"] for j in client.get("/api/v1/jobs?name=a").json()["results"]] == ["a"]
    assert [j["name"] for j in client.get("/api/v1/jobs?queue=q2").json()["results"]] == ["b"]
    after = b.created_at.isoformat().replace("+", "%2B")
    assert client.get(f"/api/v1/jobs?created_after={after}").json()["results"] == []


def queries_of(client, path):
    with CaptureQueriesContext(connection) as found:
        assert client.get(path).status_code == 200
    return len(found)


def test_query_counts_do_not_grow_with_rows(client):
    client.get("/api/v1/jobs")  # the first request notes the token's use
    first = submit("true")[0]
    paths = [
        "/api/v1/jobs?limit=500",
        "/api/v1/tasks?limit=500",
        f"/api/v1/jobs/{first.job_id}/tasks?limit=500",
        f"/api/v1/jobs/{first.job_id}",
    ]
    before = [queries_of(client, path) for path in paths]
    for _ in range(99):
        submit("true", "true")
    assert [queries_of(client, path) for path in paths] == before == [3, 2, 3, 3]


def test_submitting_many_tasks_takes_few_statements(client, django_assert_max_num_queries):
    body = {"name": "many", "tasks": JOB["tasks"] * 1000}
    with django_assert_max_num_queries(15):
        assert client.send("/api/v1/jobs", body).status_code == 201
    assert Task.objects.count() == 1000


def test_a_clone_is_a_new_job_of_the_same_tasks(client):
    task = {
        "name": "build",
        "payload": {"cmd": "make"},
        "priority": 5,
        "requires": ["gpu"],
        "timeout_seconds": 3.5,
        "max_retries": 2,
        "retry": {"fail_on": [2]},
        "deadline_seconds": 90,
    }
    body = {"name": "nightly", "queue": "q", "labels": {"a": "b"}, "tasks": [task, *JOB["tasks"]]}
    made = client.send("/api/v1/jobs", body).json()
    queue.cancel_job(made["id"])

    answer = Client("submit", name="pat").send(f"/api/v1/jobs/{made['id']}/clone")

    clone = answer.json()
    assert (answer.status_code, answer["Location"]) == (201, f"/api/v1/jobs/{clone['id']}")
    assert clone["id"] != made["id"]
    assert (clone["state"], clone["submitted_by"]) == ("pending", "pat")
    for name in ("name", "queue", "labels"):
        assert clone[name] == made[name]
    path = "/api/v1/tasks?job={id}"
    originals, copies = (client.get(path.format(**job)).json()["results"] for job in (made, clone))
    fields = [*task, "kind", "run_after"]
    assert [[t[f] for f in fields] for t in copies] == [[t[f] for f in fields] for t in originals]


def test_a_clone_takes_a_key(client):
    made = client.send("/api/v1/jobs", JOB).json()
    path = f"/api/v1/jobs/{made['id']}/clone"
    first, again = (client.send(path, HTTP_IDEMPOTENCY_KEY="k") for _ in range(2))
    assert first.json() == again.json()
    assert Job.objects.count() == 2
    problem(
        client.send("/api/v1/jobs", JOB, HTTP_IDEMPOTENCY_KEY="k"), 422, "idempotency_key_reused"
    )
