"""Workflows of science: what the data is, how stamps are judged, and the smallest of them, run."""

import pytest

from benchmarks import workflow
from benchmarks.errors import PeerFailed
from benchmarks.suite.workflows import FIGURES, WORKFLOWS, judged
from benchmarks.workflow import Span, Task
from tests.test_benchmarks import bench

DIAMOND = [Task("a", 1, []), Task("b", 2, ["a"]), Task("c", 4, ["a"]), Task("d", 1, ["b", "c"])]
STAMPS = ["a start 10", "a end 11", "b start 11.5", "c start 11", "b end 13.5", "c end 15",
          "d start 15.25", "d end 16.25"]  # fmt: skip


@pytest.mark.parametrize("name", WORKFLOWS)
def test_the_data_are_graphs_of_their_sizes_with_parents_first(name):
    seen = set()
    for task in workflow.read(name):
        assert task.seconds > 0
        assert seen.issuperset(task.parents)
        seen.add(task.key)
    assert len(seen) == {"montage": 310, "epigenomics": 515, "soykb": 176}[name]


def test_bounds_of_a_diamond():
    assert workflow.critical_path(DIAMOND) == 6
    assert workflow.levels(DIAMOND) == 3
    assert workflow.graham(DIAMOND, 2) == 8 / 2 + 6 / 2
    assert workflow.graham(workflow.scaled(DIAMOND, 3.5, 2), 2) == pytest.approx(3.5)


def test_overhead_is_while_a_slot_was_free_and_a_task_could_have_started():
    ran = {key: runs[0] for key, runs in workflow.spans(STAMPS).items()}
    assert ran["d"] == Span(15.25, 16.25)
    # Before a, before b beside c, and before d; on one slot b's wait is none.
    assert workflow.wasted(DIAMOND, ran, 9.5, 2) == pytest.approx(0.5 + 0.5 + 0.25)
    assert workflow.wasted(DIAMOND, ran, 9.5, 1) == pytest.approx(0.5 + 0.25)


def test_a_good_run_is_judged_good():
    assert workflow.breaches(DIAMOND, workflow.spans(STAMPS)) == []
    figures = judged(DIAMOND, workflow.spans(STAMPS), 9.5)
    assert figures["makespan"] == 6.75
    assert figures.keys() == set(FIGURES)


DOCTORED = {
    "d started before c had ended": [*STAMPS[:6], "d start 14.9", "d end 15.9"],
    "c ran 2 times, 2 to its end": [*STAMPS, "c start 15.1", "c end 15.2"],
    "d ran 1 times, 0 to its end": STAMPS[:7],
    "b ran 0 times, 0 to its end": [line for line in STAMPS if not line.startswith("b ")],
    "e is no task": [*STAMPS, "e start 12", "e end 13"],
}


@pytest.mark.parametrize("breach", DOCTORED)
def test_a_doctored_order_is_found(breach):
    found = workflow.spans(DOCTORED[breach])
    assert breach in workflow.breaches(DIAMOND, found)
    with pytest.raises(PeerFailed, match=r"breaches"):
        judged(DIAMOND, found, 9.5)


def test_a_makespan_that_cannot_be_is_found():
    with pytest.raises(PeerFailed, match="not within its bounds"):
        judged(DIAMOND, workflow.spans(STAMPS), 12.0)


def test_a_workflow_runs_in_its_order():
    done = bench("workflows")
    assert done.returncode == 0, done.stdout + done.stderr
    row = next(line.split() for line in done.stdout.splitlines() if line.startswith("soykb"))
    tasks, edges, levels, _, critical, makespan, bound, overhead, *_ = map(float, row[1:])
    assert (tasks, edges, levels) == (176, 374, 11)
    assert critical <= makespan <= bound + overhead
