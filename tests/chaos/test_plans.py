"""The seed alone decides what is submitted and what is broken."""

import pytest

from dtsproject.chaos.schedule import FIRST_AT, KINDS, REST_SECONDS, schedule
from dtsproject.chaos.workload import KINDS as TASK_KINDS
from dtsproject.chaos.workload import plan
from jobs.api.submissions import job_spec


def test_the_same_seed_gives_the_same_run_and_another_one_another():
    assert schedule(1, 60) == schedule(1, 60)
    assert schedule(1, 60) != schedule(2, 60)
    assert plan(1, 60) == plan(1, 60)
    assert plan(1, 60) != plan(2, 60)


@pytest.mark.parametrize("seed", range(10))
def test_a_minute_has_every_kind_of_fault_each_within_it_and_its_target_at_rest(seed):
    faults = schedule(seed, 60)
    assert {fault.kind for fault in faults} == set(KINDS)
    free_at = dict.fromkeys((fault.target for fault in faults), 0.0)
    for fault in faults:
        assert FIRST_AT <= fault.at <= fault.at + fault.seconds <= 60.001
        assert fault.at >= free_at[fault.target] - 0.01
        free_at[fault.target] = fault.at + fault.seconds + REST_SECONDS


def test_a_minute_submits_jobs_of_all_sizes_and_tasks_of_every_kind():
    submissions = plan(1, 60)
    sizes = {len(it.tasks) for it in submissions}
    assert min(sizes) == 1
    assert max(sizes) > 15
    assert {task["name"] for it in submissions for task in it.tasks} == set(TASK_KINDS)
    assert {it.then for it in submissions} == {"", "cancel", "retry"}
    on_duplicate = {it.unique and it.unique["on_duplicate"] for it in submissions}
    assert on_duplicate == {None, "reject", "join"}
    assert any("concurrency_key" in task for it in submissions for task in it.tasks)
    for it in submissions:
        assert len(job_spec(it.body()).tasks) == len(it.tasks)
