"""The examples of docs/guide.md do what it says."""

import json
import re
import shlex
from pathlib import Path

import pytest
from django.core.management import call_command

from jobs import operations, queue
from jobs.api.submissions import job_spec
from jobs.models import Deferred, Task
from jobs.states import Outcome
from scheduling.explain import why
from tests.api import Client
from tests.helpers import claim, ended, promote, register, submit
from tests.webs import run, statuses

pytestmark = pytest.mark.django_db
GUIDE = (Path(__file__).parent.parent / "docs" / "guide.md").read_text()


def section(title: str) -> str:
    return GUIDE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def examples(title: str) -> list[dict]:
    """The JSON in the section of the guide."""
    blocks = re.findall(r"```json\n(.*?)```", section(title), re.DOTALL)
    return [json.loads(block) for block in blocks]


def commands(title: str) -> list[list[str]]:
    """The commands of manage.py in the section of the guide, in words."""
    lines = section(title).splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith("manage.py ")]


def test_one_task_after_another():
    (job,) = examples("One task after another")
    submit(*job_spec(job).tasks)
    assert run(register()) == ["build", "test", "docs", "publish", "tidy"]

    Task.objects.all().delete()
    submit(*job_spec(job).tasks)
    assert run(register("w2"), {"test": "failed"}) == ["build", "test", "docs", "tidy"]
    assert statuses()["publish"] == "cancelled"


def test_not_before_a_time():
    (job,) = examples("Not before a time")
    (task,) = submit(*job_spec(job).tasks)
    worker = register()
    assert not queue.bring_due(batch=10)
    assert promote() == 0
    assert "not due before 2099-01-31 07:00" in why(task)

    Deferred.objects.update(due_at="2026-01-01T00:00Z")
    assert queue.bring_due(batch=10)
    promote()
    assert [claimed.task_id for claimed in claim(worker)] == [task.pk]


def test_again_when_it_fails():
    (job,) = examples("Again when it fails")
    (task,) = submit(*job_spec(job).tasks)
    worker = register()
    for seconds in (1, 2, 4):
        assert fail(worker) == {task.pk: "pending"}
        backoff = Deferred.objects.get().due_at - Task.objects.get().updated_at
        assert seconds / 2 <= backoff.total_seconds() <= seconds
        Deferred.objects.update(due_at="2026-01-01T00:00Z")
        assert queue.bring_due(batch=10)
    assert fail(worker) == {task.pk: "failed"}
    assert Client("operate").send(f"/api/v1/tasks/{task.pk}/retry").status_code == 200
    assert fail(worker) == {task.pk: "pending"}


def fail(worker):
    """The state that a failure leaves the one task in."""
    promote()
    (claimed,) = claim(worker)
    assert claimed.timeout_seconds == 60
    return queue.report([ended(claimed, Outcome.FAILED)])


def test_pause():
    (task,) = submit("true")
    worker, client = register(), Client("operate")
    paths = re.findall(r"curl -X POST \S+?:8080(\S+)", section("Pause"))
    assert len(paths) == 4
    for pause, resume in (paths[:2], paths[2:]):
        assert client.send(pause.replace("/1/", f"/{task.job_id}/")).status_code == 200
        promote()
        assert claim(worker) == []
        assert "paused" in why(Task.objects.get())
        assert client.send(resume.replace("/1/", f"/{task.job_id}/")).status_code == 200
    promote()
    assert len(claim(worker)) == 1


def test_one_at_a_time():
    (job,) = examples("One at a time")
    first, second = (queue.submit(job_spec(job)) for _ in range(2))
    assert (second.pk, second.joined, Task.objects.count()) == (first.pk, True, 1)


def test_many_at_once():
    (asked,) = examples("Many at once")
    submit("true", queue="import")
    queue.cancel(Task.objects.values_list("pk", flat=True))
    Task.objects.update(status="failed")
    staff = Client("operate")
    assert staff.send("/api/v1/operations", asked).json() == {"total": 1, "exact": True}
    assert staff.send("/api/v1/operations", {**asked, "dry_run": False}).status_code == 202
    operations.advance()
    assert Task.objects.get().status == "pending"


def test_retries_and_deadlines():
    (job,) = examples("Retries and deadlines")
    worker = register()
    submit(*job_spec(job).tasks)
    promote()
    for longest in (0.5, 1):
        (task,) = claim(worker)
        assert task.timeout_seconds == 60
        failed = ended(task, Outcome.FAILED, exit_code=75)
        assert queue.report([failed]) == {task.task_id: "pending"}
        row = Task.objects.get()
        wait = (Deferred.objects.get().due_at - row.updated_at).total_seconds()
        assert longest / 2 <= wait <= longest
        assert (row.deadline_at - row.created_at).total_seconds() == 3600
        Deferred.objects.update(due_at=row.updated_at)
        queue.bring_due(batch=1)
        promote()

    (task,) = claim(worker)
    assert queue.report([ended(task, Outcome.FAILED, exit_code=1)]) == {task.task_id: "failed"}


def test_no_more_than_so_many_at_once(capsys):
    title = "No more than so many at once"
    for words in commands(title):
        call_command(*words)
    listed = capsys.readouterr().out
    assert [line.split()[0] for line in listed.splitlines()] == [
        "db/main",
        "mail",
        "tenant:*",
        "queue",
    ]
    (job,) = examples(title)
    tasks = submit(*job_spec(job).tasks)
    worker = register(slots=10)
    promote()

    claimed = claim(worker)
    assert [task.payload["cmd"] for task in claimed] == [
        "echo sales", "echo stock", "echo hello",
    ]  # fmt: skip
    assert why(tasks[2]) == "Limit db/main reached (2 of 2 queued or running)."
    queue.report([ended(claimed[0])])
    promote()
    assert [task.task_id for task in claim(worker)] == [tasks[2].pk]


def test_on_a_worker_that_can():
    (job,) = examples("On a worker that can")
    needy, plain = submit(*job_spec(job).tasks)
    small = register("small", slots=4, capabilities=["gpu", "region=eu", "mem_mb=12000"])
    assert "mem_mb>=16384 (sizes are rounded up" in why(needy)
    promote()
    assert [task.task_id for task in claim(small, 4)] == [plain.pk]
    large = register("large", slots=4, capabilities=["gpu", "region=eu", "mem_mb=16384"])
    promote()
    assert [(task.task_id, task.slots) for task in claim(large, 4)] == [(needy.pk, 3)]
