"""A real workload, submitted by file, with a worker killed in the middle of it."""

import json
from collections import Counter

import pytest

from jobs.models import Attempt, Job, Lease, Task
from tests.helpers import wait_until

pytestmark = pytest.mark.django_db(transaction=True)

TASKS = 500
FAILS_TWICE = "test $DTS_ATTEMPT -ge 3 || exit 9; echo third time"


def workload(folder) -> list[dict]:
    """Mixed commands; each task's name begins with the state it has to end in."""
    text = folder / "text"
    text.write_text("\n".join(str(n * 7_919 % 20_011) for n in range(20_000)))
    kinds = [
        {"name": "done-python", "payload": {"cmd": "python3 -c 'print(sum(range(10**5)))'"}},
        {"name": "done-gzip", "payload": {"cmd": f"gzip -c {text} | gunzip | wc -l"}},
        {"name": "done-sort", "payload": {"cmd": f"sort -g {text} | tail -1"}},
        {"name": "done-sleep", "payload": {"cmd": "sleep 0.2"}},
        {"name": "done-stdin", "payload": {"cmd": "wc -c", "stdin": "x" * 10_000}},
        {"name": "done-retried", "payload": {"cmd": FAILS_TWICE}, "max_retries": 4},
        {"name": "failed-exit", "payload": {"cmd": "exit 3"}, "max_retries": 1},
        {"name": "failed-timeout", "payload": {"cmd": "sleep 60"}, "timeout_seconds": 0.3},
        {"name": "done-function", "kind": "python", "payload": {"function": "os.getpid"}},
        {"name": "done-quick", "payload": {"cmd": "true"}},
    ]
    return [{**kinds[n % len(kinds)], "priority": n % 7} for n in range(TASKS)]


def test_five_hundred_mixed_tasks_survive_the_death_of_a_worker(fleet, tmp_path):
    (tmp_path / "job.json").write_text(json.dumps({"name": "mixed", "tasks": workload(tmp_path)}))
    fleet.scheduler()
    fleet.recovery()
    victim = fleet.worker("victim", "--slots", "4")
    fleet.worker("survivor", "--slots", "4")
    client = fleet.start("submit", "--file", str(tmp_path / "job.json"), "--wait")
    wait_until(lambda: Task.objects.ended().count() > TASKS / 3, 120)
    wait_until(lambda: Lease.objects.filter(worker__name="victim").count() >= 2)

    victim.kill()

    assert client.wait(180) == 1  # some tasks are there to fail
    wrong = [t for t in Task.objects.all() if not t.name.startswith(f"{t.status}-")]
    assert not wrong
    attempts = Counter(Attempt.objects.filter(outcome="done").values_list("task_id", flat=True))
    done = Task.objects.filter(status="done").values_list("pk", flat=True)
    assert attempts == Counter(done)
    lost = Attempt.objects.filter(outcome="lost")
    assert lost.exists()
    assert {attempt.worker.name for attempt in lost} == {"victim"}
    assert not Lease.objects.exists()
    wait_until(lambda: Job.objects.get().finished_at)
    outcomes = Counter(Attempt.objects.values_list("outcome", flat=True))
    took = Job.objects.get().finished_at - Job.objects.get().created_at
    print(f"{TASKS} tasks in {took.total_seconds():.1f} s; attempts: {dict(outcomes)}")
