from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from jobs import logs, prune, queue
from jobs.models import Attempt, IdempotencyKey, Job, Lease, LogChunk, Task
from jobs.specs import LogPart
from scheduling import recovery
from scheduling.recovery import Recovery
from tests.helpers import ended, register, running, submit
from workers.models import Worker

pytestmark = pytest.mark.django_db


@pytest.fixture
def clock(monkeypatch):
    """Recovery's own clock, moved by hand: seconds in a list of one."""
    now = [1000.0]
    monkeypatch.setattr(recovery, "boottime", lambda: now[0])
    return now


def silence():
    long_ago = timezone.now() - timedelta(hours=1)
    Worker.objects.update(last_heartbeat=long_ago)
    Lease.objects.update(claimed_at=long_ago)


def test_nobody_is_judged_before_a_lease_of_own_contact(clock):
    running("true")
    silence()
    loop = Recovery()

    for _ in range(29):
        clock[0] += 1
        assert loop.tick() == 0
    assert Task.objects.get().status == "in_progress"
    clock[0] += 1.1
    assert loop.tick() == 1
    assert Task.objects.get().status == "queued"


@pytest.mark.parametrize("interruption", ["outage", "own pause"])
def test_after_an_interruption_a_whole_lease_passes_anew(clock, interruption):
    loop = Recovery()
    for _ in range(31):
        clock[0] += 1
        loop.tick()
    running("true")
    silence()
    if interruption == "outage":
        loop.lost_contact()
    else:
        clock[0] += 60

    assert loop.tick() == 0
    clock[0] += 14
    assert loop.tick() == 0


def test_log_partitions_are_made_ahead_and_dropped_by_age():
    Recovery().tick()
    today = datetime.now(UTC).date()
    assert [today + timedelta(days=n) for n in range(3)] == logs.partitions()

    logs._make_partition(today - timedelta(days=8))
    assert logs.drop_old_partitions() == 1
    assert logs.make_partitions() == 0


def test_rows_that_the_default_partition_caught_move_to_their_day():
    worker = register()
    (task,) = running("true", worker=worker)
    part = LogPart(task_id=task.task_id, fencing_token=1, stream="stdout", start=0, data=b"early")
    logs.append(worker.pk, [part])

    logs.make_partitions()

    assert logs.read(task.task_id, 1, "stdout") == (b"early", 5)
    assert LogChunk.objects.count() == 1


def test_keys_are_forgotten_after_a_day():
    for hours in (23, 25):
        IdempotencyKey.objects.create(
            owner="token 1",
            key=f"{hours}",
            job_id=1,
            created_at=timezone.now() - timedelta(hours=hours),
        )

    assert prune.prune_keys() == 1

    assert IdempotencyKey.objects.get().key == "23"


def test_old_jobs_are_pruned_with_all_that_is_theirs():
    (old,) = running("true")
    queue.report([ended(old)])
    queue.settle(after=0, limit=10)
    (kept,) = submit("true")
    assert prune.prune() == 0
    Job.objects.filter(finished_at__isnull=False).update(
        finished_at=timezone.now() - timedelta(days=31)
    )

    assert prune.prune() == 1

    assert list(Task.objects.values_list("pk", flat=True)) == [kept.pk]
    assert Job.objects.count() == 1
    assert Attempt.objects.count() == 0
