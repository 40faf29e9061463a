"""Retries by the task's own rules, deadlines and another worker first: each by real processes."""

import signal
from datetime import timedelta
from itertools import pairwise

import pytest

from jobs.models import Attempt, Task, Token
from tests.helpers import shell, submit, wait_until
from tests.processes.test_workers import finished, fresh
from workers.models import Worker

pytestmark = pytest.mark.django_db(transaction=True)

AT_ONCE = {"backoff": "fixed", "base_seconds": 0}
SOON = {"backoff": "fixed", "base_seconds": 0.1}


def outcomes(task: Task) -> list[tuple]:
    found = Attempt.objects.filter(task=task).order_by("number")
    return list(found.values_list("outcome", "exit_code"))


def test_exit_codes_signals_and_timeouts_say_whether_a_task_is_tried_again(fleet):
    cases = [
        ("exit 75", {"retry_on": [75, 111]}, 3),
        ("exit 2", {"retry_on": [75, 111]}, 1),
        ("exit 2", {"fail_on": [2]}, 1),
        ("exit 3", {"fail_on": [2]}, 3),
        ("kill -9 $$", {"retry_on": ["signal"]}, 3),
        ("exit 9", {"retry_on": ["signal"]}, 1),
        ("sleep 60", {"retry_on": ["timeout"]}, 3),
        ("sleep 60", {"fail_on": ["timeout"]}, 1),
        ("no-such-command", {"retry_on": [127]}, 3),
    ]
    flaky, *tasks = submit(
        shell('[ "$DTS_ATTEMPT" -ge 3 ] || exit 75', max_retries=9, retry={"retry_on": [75]}),
        *(
            shell(cmd, max_retries=2, timeout_seconds=0.5, retry={**AT_ONCE, **rules})
            for cmd, rules, _ in cases
        ),
    )
    fleet.scheduler()
    fleet.worker("w1", "--slots", "10")

    wait_until(lambda: finished([flaky, *tasks]), 40)

    assert [fresh(task).status for task in tasks] == ["failed"] * len(cases)
    assert [len(outcomes(task)) for task in tasks] == [attempts for *_, attempts in cases]
    assert fresh(flaky).status == "done"
    assert outcomes(flaky) == [("failed", 75), ("failed", 75), ("done", 0)]


def test_a_deadline_holds_across_retries_and_waits(fleet):
    fleet.scheduler()
    fleet.recovery()
    fleet.worker("w1", "--slots", "10")
    wait_until(Worker.objects.exists)
    tasks = submit(
        shell("sleep 60", deadline_seconds=3, timeout_seconds=30, max_retries=9),
        shell("sleep 0.7; exit 1", deadline_seconds=4, max_retries=99, retry=SOON),
        shell("true", deadline_seconds=1, requires=["nowhere"]),
        shell("true", deadline_seconds=60),
    )
    running, failing, waiting, _ = tasks

    wait_until(lambda: finished(tasks), 30)

    assert [fresh(task).status for task in tasks] == ["failed", "failed", "failed", "done"]
    assert outcomes(running) == [("timed_out", None)]
    assert len(outcomes(failing)) >= 2
    assert outcomes(waiting) == []
    assert fresh(waiting).result_text == "deadline passed"
    assert fresh(running).result_text.startswith("deadline passed\ntimed out after ")
    assert fresh(failing).result_text.startswith("deadline ")
    for task in map(fresh, (running, failing)):
        assert task.completed_at < task.deadline_at + timedelta(seconds=3)
        starts = Attempt.objects.filter(task=task).values_list("started_at", flat=True)
        assert max(starts) < task.deadline_at


def test_another_worker_is_tried_first_near_or_far_and_the_same_if_there_is_no_other(fleet):
    _, token = Token.issue("far", ["work"])
    fleet.api()
    fleet.scheduler()
    near = fleet.worker("near", "--slots", "4")
    fleet.far_worker("far", token, "--slots", "4")
    wait_until(lambda: Worker.objects.count() == 2)
    retry = {**AT_ONCE, "elsewhere": True}
    tasks = submit(*[shell("exit 1", max_retries=3, retry=retry)] * 4)

    wait_until(lambda: finished(tasks), 30)

    for task in tasks:
        found = Attempt.objects.filter(task=task).order_by("number")
        workers = list(found.values_list("worker_id", flat=True))
        assert len(workers) == 4
        assert all(one != other for one, other in pairwise(workers)), workers

    near.send_signal(signal.SIGTERM)
    near.wait(20)
    (alone,) = submit(shell("exit 1", max_retries=2, retry=retry))
    wait_until(lambda: finished([alone]), 4)
    assert set(Attempt.objects.filter(task=alone).values_list("worker__name", flat=True)) == {"far"}
