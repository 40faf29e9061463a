"""Dependencies at the doors of people: the API, the admin and the command line."""

import json

import pytest
from django.core.management import CommandError, call_command

from jobs import queue
from jobs.models import AuditEvent, Dependency, Job, Task
from jobs.specs import Parent
from jobs.states import OnFailure
from tests.api import Client, pointers, problem
from tests.helpers import register, submit
from tests.webs import run, statuses, step

pytestmark = pytest.mark.django_db


@pytest.fixture
def client():
    return Client("read", "submit", "operate")


def task(key: str = "", *parents: object, **more) -> dict:
    named = {"key": key} if key else {}
    return {"payload": {"cmd": key or "x"}, **named, "depends_on": list(parents), **more}


def test_a_job_with_dependencies(client):
    (outside,) = submit(step("outside"))
    tasks = [
        task("report", "load", {"key": "check", "on_failure": "run"}),
        task("load", outside.pk),
        task("check", {"task": outside.pk, "on_failure": "run"}, "load"),
    ]
    made = client.send("/api/v1/jobs", {"name": "web", "tasks": tasks})
    assert made.status_code == 201, made.content
    report, load, check = Task.objects.filter(job=made.json()["id"]).order_by("pk")

    shown = client.get(f"/api/v1/tasks/{report.pk}").json()

    assert (shown["key"], shown["dependency_count"]) == ("report", 2)
    assert shown["depends_on"] == [
        {"task": load.pk, "key": "load", "on_failure": "cancel", "met": False},
        {"task": check.pk, "key": "check", "on_failure": "run", "met": False},
    ]
    listed = client.get(f"/api/v1/jobs/{report.job_id}/tasks").json()["results"]
    assert [(t["key"], t["dependency_count"]) for t in listed] == [
        ("check", 2),
        ("load", 1),
        ("report", 2),
    ]
    why = client.get(f"/api/v1/tasks/{report.pk}/why").json()
    assert why == {"status": "pending", "reason": "It waits for 2 tasks: load, check."}
    queue.pause_job(report.job_id)
    why = client.get(f"/api/v1/tasks/{load.pk}/why").json()["reason"]
    assert why == f"Its job is paused, and it waits for 1 task: #{outside.pk}."


def test_why_names_a_few_of_many(client):
    parents = [step(f"p{n}") for n in range(1200)]
    *_, child = submit(*parents, step("child", *(parent.key for parent in parents)))
    why = client.get(f"/api/v1/tasks/{child.pk}/why").json()["reason"]
    assert why == "It waits for 1,200 tasks: p0, p1, p2, p3, p4 and others."


@pytest.mark.parametrize(
    ("tasks", "pointer", "said"),
    [
        ([task("a", "b"), task("b", "a")], "#/tasks/0/depends_on", "a -> b -> a"),
        ([task("a", "a")], "#/tasks/0/depends_on/0", "waits for itself"),
        ([task("a"), task("", "a", "b")], "#/tasks/1/depends_on/1", "'b'"),
        ([task("a"), task("a")], "#/tasks/1/key", "has the key a, too"),
        ([task("a b")], "#/tasks/0/key", "Use letters"),
        ([task("", True)], "#/tasks/0/depends_on/0/task", "valid integer"),
        ([task("", 0)], "#/tasks/0/depends_on/0/task", "greater"),
        ([task("", None)], "#/tasks/0/depends_on/0", "null"),
        ([task("", 1.5)], "#/tasks/0/depends_on/0", "dictionary"),
        ([task("", {})], "#/tasks/0/depends_on/0", "by its key"),
        ([task("a"), task("", {"key": "a", "task": 1})], "#/tasks/1/depends_on/0", "by its key"),
        ([task("", {"task": 1, "on_failure": "x"})], "#/tasks/0/depends_on/0/on_failure", "x"),
        ([task("", {"job": 1})], "#/tasks/0/depends_on/0/job", "no such field"),
        ([{"payload": {"cmd": "x"}, "depends_on": "a"}], "#/tasks/0/depends_on", "list"),
    ],
)
def test_what_cannot_be_is_refused_by_name_and_nothing_stored(client, tasks, pointer, said):
    answer = problem(client.send("/api/v1/jobs", {"name": "x", "tasks": tasks}), 400, "invalid")
    assert pointers(answer) == [pointer]
    assert said in answer["errors"][0]["detail"]
    assert not Job.objects.exists()


def test_a_task_of_another_job_must_be_there_and_may_not_have_failed(client):
    (gone,) = submit(step("gone"))
    queue.cancel([gone.pk])
    for parent, said in ((987_654, "There is no task"), (gone.pk, "was cancelled: retry it")):
        body = {"name": "x", "tasks": [task("", parent)]}
        answer = problem(client.send("/api/v1/jobs", body), 422, "bad_dependency")
        assert said in answer["detail"]
        assert answer["pointer"] == "#/tasks/0/depends_on/0"
    assert Job.objects.count() == 1


def test_a_clone_has_the_same_edges(client):
    (outside,) = submit(step("outside"))
    first, *_ = submit(step("a"), step("b", "a", Parent(outside.pk, "run")), step("c", "b", "a"))
    made = client.send(f"/api/v1/jobs/{first.job_id}/clone").json()
    edges = Dependency.objects.filter(task__job=made["id"]).order_by("task_id", "depends_on_id")
    found = edges.values_list("task__key", "depends_on__key", "on_failure")
    assert list(found) == [
        ("b", "outside", "run"),
        ("b", "a", "cancel"),
        ("c", "a", "cancel"),
        ("c", "b", "cancel"),
    ]


def test_a_retry_brings_back_what_the_failure_cancelled(client):
    worker = register()
    a, b = submit(step("a"), step("b", "a"))
    run(worker, {"a": "failed"})
    answer = client.send(f"/api/v1/tasks/{b.pk}/retry")
    assert "that failed" in problem(answer, 409, "wrong_state")["detail"]
    assert client.send(f"/api/v1/tasks/{a.pk}/retry").status_code == 200
    assert set(statuses().values()) == {"pending"}
    assert AuditEvent.objects.get().target == f"task {a.pk}"


def test_pages_show_what_a_task_waits_for_and_what_waits_for_it(admin_client):
    build, test, ship = submit(
        step("build"), step("test", "build"), step("ship", Parent("test", OnFailure.RUN), "build")
    )

    def page(path: str) -> str:
        return admin_client.get(f"/admin/jobs/{path}/change/").content.decode()

    assert "Depends on" not in page(f"task/{build.pk}")
    assert "Awaited by" in page(f"task/{build.pk}")
    shown = page(f"task/{test.pk}")
    assert "It waits for 1 task: build." in shown
    assert f"/admin/jobs/task/{build.pk}/change/" in shown
    assert "not yet" in shown
    assert "build, test*" in page(f"job/{build.job_id}")
    assert all(words in page(f"task/{ship.pk}") for words in ("starts all the same", "cancelled"))
    (plain,) = submit("x")
    assert "Depends on" not in page(f"job/{plain.job_id}")


def test_a_file_may_name_dependencies(tmp_path, capsys):
    path = tmp_path / "job.json"
    path.write_text(json.dumps({"name": "x", "tasks": [task("a"), task("b", "a")]}))
    call_command("submit", "--file", str(path))
    assert Dependency.objects.get().depends_on.key == "a"
    path.write_text(json.dumps({"name": "x", "tasks": [task("a", "b"), task("b", "a")]}))
    with pytest.raises(CommandError, match="a -> b -> a") as refused:
        call_command("submit", "--file", str(path))
    assert refused.value.returncode == 2
