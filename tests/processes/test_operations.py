"""An operation goes on whoever of the recoveries dies, and each task is dealt with once."""

import pytest

from jobs import operations
from jobs.models import Operation, Task
from tests.helpers import shell, submit, wait_until

pytestmark = pytest.mark.django_db(transaction=True)
TASKS = 12_000


def test_a_large_job_is_cancelled_though_recovery_is_killed_in_between(fleet):
    (first, *_) = submit(*[shell("true")] * TASKS)
    job = first.job
    operation = operations.of_large_job(job, "cancel", "tests")
    doomed = fleet.recovery()
    wait_until(lambda: Operation.objects.get().done, 60)
    doomed.kill()
    doomed.wait()
    at_death = Operation.objects.get()
    assert at_death.state == "running"
    assert Task.objects.filter(status="cancelled").count() == at_death.done < TASKS

    fleet.recovery()
    wait_until(lambda: Operation.objects.get().ended_at, 60)

    over = Operation.objects.get(pk=operation.pk)
    assert (over.state, over.done, over.total) == ("done", TASKS, TASKS)
    assert Task.objects.filter(status="cancelled").count() == TASKS
