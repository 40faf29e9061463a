"""Long queues with real workers: killed at random, overtaken by something urgent, and measured.

The suite keeps them short; the variables DTS_TEST_DRAIN_TASKS (200000), DTS_TEST_LONG_TASKS (10000)
and DTS_TEST_BACKLOG (1000000) make them as long as they are to be shown.
"""

import os
import random
import subprocess
import time

import pytest
from django.core.management import call_command
from django.db import connection
from django.db.models import Count

from jobs.models import Attempt, Lease, Task, Waiting
from jobs.specs import TaskSpec
from tests.helpers import shell, submit, wait_until
from tests.processes.test_memory import MOST_MB, resident_mb

pytestmark = pytest.mark.django_db(transaction=True)

DRAINED = int(os.environ.get("DTS_TEST_DRAIN_TASKS", "4000"))
LONG = int(os.environ.get("DTS_TEST_LONG_TASKS", "40"))
BACKLOG = int(os.environ.get("DTS_TEST_BACKLOG", "2000"))
A_JOB = 10_000
NOTHING = TaskSpec(kind="python", payload={"function": "os.getpid"})
# A backlog that waits for a worker with a gpu, which never comes.
FILL = """
WITH lane AS (INSERT INTO lanes (queue, requires) VALUES ('default', '{gpu}') RETURNING id)
INSERT INTO waiting (task_id, lane_id, score, job_id)
    SELECT 1000000000 + n, id, n, 1 FROM lane, generate_series(1, %s) n
"""


def submit_all(number: int) -> None:
    for start in range(0, number, A_JOB):
        submit(*[NOTHING] * min(A_JOB, number - start))


def inline_worker(fleet, name: str) -> subprocess.Popen:
    return fleet.worker(name, "--executor", "inline")


def at_work() -> list[str]:
    """The workers that hold something: one that only starts would never get to work."""
    return sorted(set(Lease.objects.values_list("worker__name", flat=True)))


def all_ended() -> bool:
    return not Task.objects.live().exists()


def test_workers_killed_at_random_lose_and_double_nothing(fleet):
    submit_all(DRAINED)
    fleet.scheduler()
    fleet.recovery()
    workers = {name: inline_worker(fleet, name) for name in ("w1", "w2", "w3", "w4")}
    chance, kills = random.Random(1), 0  # noqa: S311 - no secret
    give_up_at = time.monotonic() + 60 + DRAINED / 200
    while not all_ended() and time.monotonic() < give_up_at:
        time.sleep(chance.uniform(0.3, 2))
        if victim := chance.choice([None, *at_work()]):
            workers[victim].kill()
            workers[victim].wait()
            workers[victim], kills = inline_worker(fleet, victim), kills + 1

    assert all_ended(), fleet.logs()
    assert Task.objects.filter(status="done").count() == DRAINED
    done = Attempt.objects.filter(outcome="done").values("task_id").annotate(n=Count("pk"))
    assert (done.count(), done.filter(n__gt=1).count()) == (DRAINED, 0)
    assert not Lease.objects.exists()
    call_command("audit")  # raises where an invariant does not hold
    lost = Attempt.objects.filter(outcome="lost").count()
    print(f"{DRAINED} tasks, {kills} workers killed, {lost} attempts lost with them")


def test_an_urgent_task_starts_on_the_next_slot_that_frees(fleet):
    submit(*["sleep 1"] * LONG)
    fleet.scheduler()
    fleet.worker("w1", "--slots", "4")
    wait_until(lambda: Attempt.objects.filter(outcome="done").count() >= 4)

    (urgent,) = submit(shell("true", priority=90))
    wait_until(lambda: Task.objects.filter(pk=urgent.pk, status="done").exists())

    urgent.refresh_from_db()
    waited = (urgent.started_at - urgent.created_at).total_seconds()
    between = Task.objects.filter(
        started_at__gt=urgent.created_at, started_at__lt=urgent.started_at
    ).count()
    print(f"{LONG} tasks of 1 s: waited {waited:.3f} s; {between} others started meanwhile")
    # Each of the four slots frees within a second; what was being handed out may go first.
    assert waited < 2
    assert between <= 4


def test_memory_stays_flat(fleet):
    with connection.cursor() as cursor:
        cursor.execute(FILL, [BACKLOG])
        cursor.execute("ANALYZE waiting")
    loops = {"scheduler": fleet.scheduler(), "worker": inline_worker(fleet, "w1")}
    sizes: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(4):
        submit_all(DRAINED // 8)
        wait_until(lambda: Waiting.objects.filter(task_id__lt=10**9).count() == 0, 600)
        wait_until(lambda: not Lease.objects.exists(), 600)
        for name, process in loops.items():
            sizes[name].append(resident_mb(process.pid))

    print(f"MB after each quarter of {DRAINED // 2} tasks, {BACKLOG} waiting: {sizes}")
    for measured in sizes.values():
        assert max(measured) < MOST_MB
        assert measured[-1] < measured[0] + 5
