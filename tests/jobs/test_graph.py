"""Edges that cannot be are refused by name, before anything is stored."""

import pytest

from jobs.graph import MAX_EDGES, BadDependency, edges_of
from jobs.specs import Parent, TaskSpec


def step(key: str, *parents: Parent | str | int) -> TaskSpec:
    return TaskSpec(payload={"cmd": key}, key=key, depends_on=parents)


def test_edges_are_found_by_key_in_whatever_order_the_tasks_come():
    edges = edges_of([step("b", "a", Parent("c", "run"), 77), step("a"), step("c", "a"), step("")])
    assert [(e.child, e.parent, e.outside, e.on_failure) for e in edges] == [
        (0, 1, False, "cancel"),
        (0, 2, False, "run"),
        (0, 77, True, "cancel"),
        (2, 1, False, "cancel"),
    ]


def test_tasks_without_edges_have_none():
    assert edges_of([step(""), step(""), step("a")]) == []


@pytest.mark.parametrize(
    ("tasks", "pointer", "said"),
    [
        ([step("a"), step("a")], "#/tasks/1/key", "Task 0 of this job has the key a, too."),
        ([step("a", "b")], "#/tasks/0/depends_on/0", "No task of this job has the key 'b'."),
        ([step("a"), step("b", "a", "")], "#/tasks/1/depends_on/1", "has the key ''."),
        ([step("a"), step("b", "a", "a")], "#/tasks/1/depends_on/1", "a is named twice."),
        ([step("a"), step("b", 7, Parent(7))], "#/tasks/1/depends_on/1", "7 is named twice."),
        ([step("a", "a")], "#/tasks/0/depends_on/0", "The task waits for itself: a -> a."),
        (
            [step("a", "b"), step("b", "a")],
            "#/tasks/0/depends_on",
            "Tasks wait for each other: a -> b -> a.",
        ),
        (
            [step("x"), step("c", "a", "x"), step("a", "b"), step("b", "x", "c"), step("y", "c")],
            "#/tasks/1/depends_on",
            "Tasks wait for each other: c -> a -> b -> c.",
        ),
    ],
)
def test_what_cannot_be_is_named(tasks, pointer, said):
    with pytest.raises(BadDependency) as refused:
        edges_of(tasks)
    assert refused.value.members == {"pointer": pointer}
    assert said in refused.value.detail


def test_of_a_long_cycle_some_is_left_out():
    tasks = [step(f"t{n}", f"t{(n + 1) % 1000}") for n in range(1000)]
    with pytest.raises(BadDependency) as refused:
        edges_of(tasks)
    assert refused.value.detail.startswith("Tasks wait for each other: t0 -> t1 -> t2 -> ")
    assert refused.value.detail.endswith("t17 -> ... -> t0.")


def test_as_many_edges_as_a_job_may_have_and_one_more():
    wide = [step(f"p{n}") for n in range(400)]
    names = [task.key for task in wide]
    tasks = [*wide, *(step("", *names) for _ in range(MAX_EDGES // 400))]
    assert len(edges_of(tasks)) == MAX_EDGES
    with pytest.raises(BadDependency, match="at most 100,000 dependencies; this has 100,001"):
        edges_of([*tasks, step("", "p0")])
