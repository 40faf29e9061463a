"""The examples of docs/guide.md do what it says."""

import json
import re
from pathlib import Path

import pytest

from jobs import operations, queue
from jobs.api.submissions import job_spec
from jobs.models import Task
from tests.api import Client
from tests.helpers import register, submit
from tests.webs import run, statuses

pytestmark = pytest.mark.django_db
GUIDE = (Path(__file__).parent.parent / "docs" / "guide.md").read_text()


def examples(title: str) -> list[dict]:
    """The JSON in the section of the guide."""
    section = GUIDE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    return [json.loads(block) for block in re.findall(r"```json\n(.*?)```", section, re.DOTALL)]


def test_one_task_after_another():
    (job,) = examples("One task after another")
    submit(*job_spec(job).tasks)
    assert run(register()) == ["build", "test", "docs", "publish", "tidy"]

    Task.objects.all().delete()
    submit(*job_spec(job).tasks)
    assert run(register("w2"), {"test": "failed"}) == ["build", "test", "docs", "tidy"]
    assert statuses()["publish"] == "cancelled"


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
