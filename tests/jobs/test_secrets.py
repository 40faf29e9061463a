"""A secret value of a task's environment: to its process, and to nobody's eyes."""

import json
import uuid
from uuid import UUID

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client as Browser

from jobs import queue, secrets
from jobs.models import Attempt, AuditEvent, Job, Task
from jobs.specs import Claimed
from tests.api import Client, pointers, problem
from tests.helpers import promote, register
from workers import executor

pytestmark = pytest.mark.django_db

VALUE = "correct-horse-battery"
GIVEN = {"PASSWORD": {"secret": True, "value": VALUE}, "PLAIN": "shown"}
SHOWN = {"PASSWORD": {"secret": True, "value": "***"}, "PLAIN": "shown"}
JOB = {
    "name": "with secrets",
    "tasks": [{"payload": {"cmd": "echo $PASSWORD | wc -c", "env": GIVEN}, "max_retries": 1}],
}


@pytest.fixture
def client():
    return Client("read", "submit", "operate", "work")


@pytest.fixture
def job(client):
    return client.send("/api/v1/jobs", JOB).json()["id"]


def claim(client):
    """What a worker gets over HTTP."""
    worker = register(f"w{uuid.uuid4()}")
    promote()
    body = {"boot_id": str(worker.boot_id), "limit": 10}
    return worker, client.send(f"/api/v1/workers/{worker.pk}/claim", body).json()["tasks"]


def test_the_worker_and_the_process_get_the_value(client, job):
    _, (task,) = claim(client)
    assert task["payload"]["env"] == GIVEN
    run = executor.command(Claimed(**{**task, "claimed_at": None}), UUID(int=0), {"PATH": "/bin"})
    assert (run.env["PASSWORD"], run.env["PLAIN"]) == (VALUE, "shown")
    assert VALUE not in " ".join(run.argv)


def test_the_api_shows_a_mask(client, job):
    _, (task,) = claim(client)
    key = {"HTTP_IDEMPOTENCY_KEY": "k"}
    asked = [
        client.send("/api/v1/jobs", JOB, **key),
        client.send("/api/v1/jobs", JOB, **key),
        client.send("/api/v1/jobs", {**JOB, "name": "other"}, **key),
        client.send(f"/api/v1/tasks/{task['task_id']}/cancel"),
        client.send(f"/api/v1/jobs/{job}/prioritise", {"priority": 5}),
    ]
    for path in ("", "/attempts", "/log", "/why"):
        asked.append(client.get(f"/api/v1/tasks/{task['task_id']}{path}"))
    for path in ("jobs", f"jobs/{job}", f"jobs/{job}/tasks", "tasks", "queues", "workers", "stats"):
        asked.append(client.get(f"/api/v1/{path}"))
    for answer in asked:
        assert answer.status_code < 500
        assert VALUE not in answer.content.decode()
    assert client.get(f"/api/v1/tasks/{task['task_id']}").json()["payload"]["env"] == SHOWN
    (listed,) = client.get(f"/api/v1/jobs/{job}/tasks").json()["results"]
    assert listed["payload"]["env"] == SHOWN


def test_a_clone_keeps_the_value(client, job):
    clone = client.send(f"/api/v1/jobs/{job}/clone")
    assert VALUE not in clone.content.decode()
    assert Task.objects.get(job=clone.json()["id"]).payload["env"] == GIVEN


def test_pages_show_a_mask(client, job):
    worker, (task,) = claim(client)
    ending = {k: task[k] for k in ("task_id", "fencing_token")} | {"outcome": "failed"}
    report = {"boot_id": str(worker.boot_id), "endings": [ending]}
    assert client.send(f"/api/v1/workers/{worker.pk}/report", report).status_code == 200
    browser = Browser()
    browser.force_login(User.objects.create_superuser("root", password="x"))
    of_task, attempt = f"/admin/jobs/task/{task['task_id']}/change/", Attempt.objects.get().pk
    pages = [of_task, "/admin/jobs/task/", "/admin/jobs/job/", f"/admin/jobs/job/{job}/change/"]
    pages += ["/admin/", "/admin/jobs/attempt/", f"/admin/jobs/attempt/{attempt}/change/"]
    pages += ["/admin/jobs/auditevent/", f"/api/v1/tasks/{task['task_id']}", "/api/v1/tasks"]
    for path in pages:
        page = browser.get(path, HTTP_ACCEPT="text/html,*/*;q=0.5")
        assert (page.status_code, page["Content-Type"][:9]) == (200, "text/html"), path
        assert VALUE not in page.content.decode(), path
    assert "***" in browser.get(of_task).content.decode()


@pytest.mark.django_db(transaction=True)  # `audit` begins one of its own
def test_commands_and_the_audit_trail_do_not_show_it(client, job, tmp_path, capsys):
    file = tmp_path / "job.json"
    file.write_text(json.dumps(JOB))
    call_command("submit", file=str(file))
    call_command("audit")
    client.send(f"/api/v1/jobs/{job}/cancel")
    client.send(f"/api/v1/jobs/{job}/retry")
    said = "".join(capsys.readouterr())
    assert VALUE not in said
    assert VALUE not in str(list(AuditEvent.objects.values()))
    assert AuditEvent.objects.exists()


def test_a_fault_of_ours_does_not_show_it(client, monkeypatch, caplog):
    def fail(spec, **more):
        raise ZeroDivisionError("no luck")

    monkeypatch.setattr(queue, "submit", fail)
    answer = client.send("/api/v1/jobs", JOB)
    problem(answer, 500, "internal_error")
    assert "no luck" in caplog.text
    assert VALUE not in caplog.text + answer.content.decode()


def test_a_schedule_keeps_it_and_shows_a_mask(client):
    body = {"name": "nightly", "cron": "@daily", "template": JOB}
    made = client.send("/api/v1/schedules", body).json()
    path = f"/api/v1/schedules/{made['id']}"
    assert made["template"]["tasks"][0]["payload"]["env"] == SHOWN
    asked = [client.get(path), client.get("/api/v1/schedules"), client.send(f"{path}/fire")]
    asked.append(client.get(f"{path}/firings"))
    browser = Browser()
    browser.force_login(User.objects.create_superuser("root", password="x"))
    page = f"/admin/scheduling/schedule/{made['id']}/change/"
    for answer in [*asked, browser.get(page), browser.get("/admin/scheduling/schedule/")]:
        assert answer.status_code in (200, 201)
        assert VALUE not in answer.content.decode()
    assert Task.objects.get().payload["env"] == GIVEN
    given_back = client.patch(path, {"template": made["template"]}, format="json")
    assert "/env/PASSWORD/value" in pointers(problem(given_back, 400, "invalid"))[0]


def test_lines_are_masked_like_any_job(client):
    lines = [{"name": "lines"}, *JOB["tasks"]]
    text = "\n".join(map(json.dumps, lines)).encode()
    answer = client.post("/api/v1/jobs", text, content_type="application/x-ndjson")
    assert answer.status_code == 201
    assert VALUE not in answer.content.decode()
    assert Task.objects.get().payload["env"] == GIVEN


@pytest.mark.parametrize(
    "bad",
    [
        {"secret": True},
        {"value": VALUE},
        {"secret": False, "value": VALUE},
        {"secret": "true", "value": VALUE},
        {"secret": True, "value": 5},
        {"secret": True, "value": VALUE, "more": 1},
        {"secret": True, "value": "***"},
        [VALUE],
    ],
)
def test_what_is_no_secret_is_refused_without_showing_it(client, bad):
    body = {"name": "a", "tasks": [{"payload": {"cmd": "x", "env": {**GIVEN, "B": bad}}}]}
    answer = client.send("/api/v1/jobs", body)
    (place,) = pointers(problem(answer, 400, "invalid"))
    assert place.startswith("#/tasks/0/payload/env/B")
    assert VALUE not in answer.content.decode()
    assert not Job.objects.exists()


def test_values_may_be_as_long_as_linux_passes_and_no_longer(client):
    long = {"secret": True, "value": "x" * 131_072}
    body = {"name": "a", "tasks": [{"payload": {"cmd": "x", "env": {"B": long}}}]}
    problem(client.send("/api/v1/jobs", body), 400, "invalid")


def test_masking_leaves_alone_what_is_no_secret():
    for payload in ({"cmd": "x"}, {"function": "a.b", "kwargs": {"env": "x"}}, None, {"env": {}}):
        assert secrets.masked(payload) == payload
    assert secrets.masked({"cmd": "x", "env": GIVEN})["env"] == SHOWN
    assert GIVEN["PASSWORD"]["value"] == VALUE
