"""What a secret value is for, with real processes."""

from jobs import queue
from jobs.models import Task
from jobs.specs import JobSpec, TaskSpec
from tests.helpers import wait_until

VALUE = "correct-horse-battery"


def test_a_task_gets_its_secret_and_no_log_does(fleet):
    env = {"PASSWORD": {"secret": True, "value": VALUE}, "EXPECTED": VALUE}
    payload = {"cmd": 'test "$PASSWORD" = "$EXPECTED" && echo "$DTS_TASK_ID"', "env": env}
    queue.submit(JobSpec(name="real", tasks=[TaskSpec(payload=payload)]))
    fleet.scheduler()
    fleet.worker("w1", "--slots", "1")

    wait_until(lambda: Task.objects.filter(final_status__isnull=False).exists(), 60)

    task = Task.objects.get()
    assert (task.status, task.result_text) == ("done", f"{task.pk}\n")
    assert VALUE not in fleet.logs()
