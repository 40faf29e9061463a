"""Slots kept by a real worker, by what the tasks themselves write."""

import pytest

from jobs.models import Task
from tests.helpers import shell, submit, wait_until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("executor", ["process", "inline"])
def test_tasks_that_take_two_of_three_slots_never_run_at_once(fleet, tmp_path, executor):
    stamps = tmp_path / "stamps"

    def stamped(slots: int):
        stamp = f"$(date +%s.%N) $DTS_TASK_ID {slots} >> {stamps}"
        return shell(f"echo + {stamp}; sleep .1; echo - {stamp}", slots=slots)

    tasks = submit(*[stamped(slots) for slots in (2, 1, 2, 1, 1, 2, 3, 1, 2, 2, 1)])
    fleet.scheduler()
    fleet.worker("w1", "--slots", "3", "--executor", executor)
    done = Task.objects.filter(status="done")
    wait_until(lambda: done.count() == len(tasks))

    lines = sorted(line.split() for line in stamps.read_text().splitlines())
    lines.sort(key=lambda line: float(line[1]))
    busy, most = {}, 0
    for sign, _, task_id, slots in lines:
        if sign == "+":
            busy[task_id] = int(slots)
        else:
            del busy[task_id]
        most = max(most, sum(busy.values()))
        assert list(busy.values()).count(2) <= 1
    assert (most, len(lines)) == (3, 2 * len(tasks))


def test_a_wide_task_is_run_though_short_ones_never_end(fleet):
    fleet.scheduler()
    fleet.worker("w1", "--slots", "3", "--capabilities", "mem_mb=4096")
    submit(*(shell(f"sleep 0.{n % 3 + 1}") for n in range(40)))
    wait_until(lambda: Task.objects.filter(status="in_progress").exists())
    (wide,) = submit(shell("true", slots=3, requires=["mem_mb>=4000"], priority=1))
    wait_until(lambda: Task.objects.filter(pk=wide.pk, status="done").exists())
    assert Task.objects.filter(status="pending").exists()  # what came before and is less urgent
