"""Limits: never exceeded, and never in the way of what they do not concern."""

import pytest

from jobs import queue
from jobs.models import Lease, Ready, Task
from tests.helpers import claim, ended, promote, register, shell, submit
from tests.webs import place_of, sound

pytestmark = pytest.mark.django_db


def keyed(n: int, key: str = "db", **more) -> list[Task]:
    return submit(*[shell(f"{key} {i}", concurrency_key=key, **more) for i in range(n)])


def live(key: str = "db") -> int:
    ids = [*Ready.objects.values_list("pk", flat=True), *Lease.objects.values_list("pk", flat=True)]
    return Task.objects.filter(pk__in=ids, concurrency_key=key).count()


def test_no_more_of_a_key_than_its_limit_are_queued_or_run():
    queue.limit_key("db", {"max_running": 2})
    worker = register(slots=10)
    tasks = keyed(5)
    others = submit("1", "2", "3")

    promote()

    assert [place_of(task) for task in tasks] == ["ready", "ready", *["limit db"] * 3]
    assert {place_of(task) for task in others} == {"ready"}
    claimed = claim(worker)
    assert promote() == 0
    queue.report([ended(task) for task in claimed])
    assert promote() == 2
    assert [place_of(task) for task in tasks[2:]] == ["ready", "ready", "limit db"]
    assert sound()
