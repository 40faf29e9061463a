import pytest

from jobs import logs, queue
from jobs.specs import LogPart
from tests.helpers import ended, register, running

pytestmark = pytest.mark.django_db


def part(task, start, data, stream="stdout"):
    return LogPart(
        task_id=task.task_id,
        fencing_token=task.fencing_token,
        stream=stream,
        start=start,
        data=data,
    )


def test_output_is_read_by_offset():
    worker = register()
    (task,) = running("true", worker=worker)
    logs.append(worker.pk, [part(task, 0, b"hello "), part(task, 6, b"world")])

    assert logs.read(task.task_id, 1, "stdout") == (b"hello world", 11)
    assert logs.read(task.task_id, 1, "stdout", after=8) == (b"rld", 11)
    assert logs.read(task.task_id, 1, "stdout", after=11) == (b"", 11)
    assert logs.read(task.task_id, 1, "stderr") == (b"", 0)


def test_a_part_sent_twice_is_stored_once():
    worker = register()
    (task,) = running("true", worker=worker)

    assert logs.append(worker.pk, [part(task, 0, b"x")]) == 1
    assert logs.append(worker.pk, [part(task, 0, b"x")]) == 0


def test_a_gap_is_shown():
    worker = register()
    (task,) = running("true", worker=worker)
    logs.append(worker.pk, [part(task, 0, b"head"), part(task, 100, b"tail")])

    assert logs.read(task.task_id, 1, "stdout")[0] == b"head\n[... 96 bytes left out]\ntail"


def test_only_the_holder_of_the_lease_may_write():
    worker, other = register(), register("other")
    (task,) = running("true", worker=worker)
    assert logs.append(other.pk, [part(task, 0, b"forged")]) == 0
    queue.report([ended(task)])
    assert logs.append(worker.pk, [part(task, 0, b"late")]) == 0
