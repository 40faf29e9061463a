"""A task starts when those that it depends on have ended, and not before."""

from datetime import timedelta
from itertools import pairwise

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs import dependencies, prune, queue
from jobs.graph import BadDependency
from jobs.models import Blocked, Dependency, EndedParent, Job, Task
from jobs.specs import Parent
from jobs.states import Outcome, Status
from scheduling.scheduler import Scheduler
from tests.helpers import begin, claim, ended, promote, register, shell, submit
from tests.webs import place_of, run, sound, statuses, step

pytestmark = pytest.mark.django_db


# -- waiting and starting --------------------------------------------------------------------


def test_a_task_waits_until_all_that_it_depends_on_are_done():
    worker = register()
    end, left, right, start = submit(
        step("end", "left", "right"), step("left", "start"), step("right", "start"), step("start")
    )
    assert [place_of(t) for t in (end, left, right, start)] == [
        "dependencies 2",
        "dependencies 1",
        "dependencies 1",
        "waiting",
    ]
    assert run(worker, most=2) == ["start", "left"]
    promote()
    assert [place_of(t) for t in (end, right)] == ["dependencies 1", "ready"]
    assert sound()
    assert run(worker) == ["right", "end"]
    assert set(statuses().values()) == {"done"}


def test_nothing_else_lets_it_start():
    worker = register()
    child, parent = submit(step("child", "parent"), step("parent", max_retries=1))
    promote()
    (held,) = claim(worker)
    queue.report([ended(held, Outcome.FAILED)])
    queue.prioritise([child.pk], 90)
    queue.release()
    promote()
    assert (place_of(child), place_of(parent)) == ("dependencies 1", "deferred")


def test_it_is_not_due_before_its_time_either():
    worker = register()
    late = timezone.now() + timedelta(hours=1)
    (child, _) = submit(step("child", "parent", run_after=late), step("parent"))
    assert place_of(child) == "dependencies 1"
    run(worker)
    assert place_of(child) == "deferred"


def test_while_its_job_is_paused_it_is_put_aside():
    worker = register()
    child, other, _ = submit(step("child", "parent"), step("other", "parent"), step("parent"))
    promote()
    (held,) = claim(worker)
    queue.pause_job(child.job_id)
    assert place_of(child) == "dependencies 1"
    queue.report([ended(held)])
    promote()
    assert [place_of(t) for t in (child, other)] == [f"paused {child.job_id}"] * 2
    assert sound()
    queue.resume_job(child.job_id)
    assert run(worker) == ["child", "other"]


# -- parents that do not end well ------------------------------------------------------------


def test_a_failure_cancels_what_depends_on_it_and_so_on():
    worker = register()
    submit(
        step("a"),
        step("b", "a"),
        step("c", "b"),
        step("d", Parent("b", "run")),
        step("e", Parent("a", "run"), "c"),
        step("apart"),
    )
    assert run(worker, {"a": "failed"}) == ["a", "apart", "d"]
    cancelled = dict.fromkeys("bce", "cancelled")
    assert statuses() == {"a": "failed", **cancelled, "d": "done", "apart": "done"}
    a, b = (Task.objects.get(key=key) for key in "ab")
    assert b.result_text == f"cancelled: task {a.pk}, on which it depends, failed"
    assert not EndedParent.objects.exists()
    assert sound()


def test_a_cancel_of_what_waits_or_runs_does_the_same():
    worker = register()
    waits, runs, *_ = submit(
        step("waits"), step("runs", priority=9), step("x", "waits"), step("y", "runs")
    )
    promote()
    (held,) = claim(worker, 1)
    queue.cancel([waits.pk, runs.pk])
    queue.report([ended(held, Outcome.CANCELLED)])
    run(worker)
    assert set(statuses().values()) == {"cancelled"}
    x = Task.objects.get(key="x")
    assert x.result_text == f"cancelled: task {waits.pk}, on which it depends, was cancelled"
    assert x.cancel_requested_at is None


def test_a_cancelled_job_is_cancelled_whole():
    worker = register()
    first, *_ = submit(step("a"), step("b", "a"), step("c", Parent("b", "run")))
    left = queue.cancel_job(first.job_id)
    assert set(left.values()) == {"cancelled"}
    assert run(worker) == []
    assert not EndedParent.objects.exists()
    assert sound()


def test_what_a_failure_cancelled_comes_back_with_it():
    worker = register()
    a, b, c, gone, _ = submit(
        step("a"), step("b", "a"), step("c", "b"), step("gone", "a"), step("d", Parent("a", "run"))
    )
    queue.cancel([gone.pk])
    run(worker, {"a": "failed"})

    assert queue.retry([b.pk]) == []
    assert sorted(queue.retry([a.pk])) == [a.pk, b.pk, c.pk]

    assert [place_of(t) for t in (a, b, c)] == ["waiting", "dependencies 1", "dependencies 1"]
    assert sound()
    assert run(worker) == ["a", "b", "c"]
    assert statuses() == {key: "cancelled" if key == "gone" else "done" for key in statuses()}
    found = Task.objects.order_by("pk").values_list("generation", flat=True)
    assert list(found) == [2, 2, 2, 1, 1]


def test_a_job_retried_whole_runs_in_order_again():
    worker = register()
    submit(step("c", "b"), step("b", "a"), step("a"), step("d", "a", "done"), step("done"))
    run(worker, {"a": "failed"})
    again = queue.retry(Task.objects.values_list("pk", flat=True))
    assert len(again) == 4
    assert sound()
    assert run(worker) == ["a", "b", "d", "c"]


def test_it_comes_back_in_vain_while_another_parent_has_failed():
    worker = register()
    a, _, child = submit(step("a"), step("b"), step("child", "a", "b"))
    run(worker, {"a": "failed", "b": "failed"})
    queue.retry([a.pk])
    assert run(worker) == ["a"]
    assert place_of(child) == "cancelled"
    assert sound()


def test_a_retry_before_the_dependents_were_told_spares_them():
    worker = register()
    a, b = submit(step("a"), step("b", "a"))
    promote()
    queue.report([ended(claim(worker)[0], Outcome.FAILED)])
    assert EndedParent.objects.exists()
    queue.retry([a.pk])
    queue.release()
    assert place_of(b) == "dependencies 1"
    assert run(worker) == ["a", "b"]
    assert Task.objects.get(pk=b.pk).generation == 1


# -- across jobs -----------------------------------------------------------------------------


def test_a_task_of_another_job_is_awaited_by_its_id():
    worker = register()
    parent, done, failed = submit(step("parent"), step("done"), step("failed"))
    queue.prioritise([done.pk, failed.pk], 9)
    run(worker, {"failed": "failed"}, most=2)
    child, other = submit(
        step("child", parent.pk, done.pk, Parent(failed.pk, "run")),
        step("other", done.pk, Parent(failed.pk, "run")),
    )
    assert place_of(child) == "dependencies 3"
    promote()
    assert [place_of(t) for t in (child, other)] == ["dependencies 1", "ready"]
    assert sound()
    assert run(worker) == ["parent", "other", "child"]


@pytest.mark.parametrize(
    ("outcome", "said"), [("failed", "has failed: retry it"), ("cancelled", "was cancelled:")]
)
def test_nothing_can_depend_on_what_ended_badly(outcome, said):
    worker = register()
    (parent,) = submit(step("parent"))
    if outcome == "cancelled":
        queue.cancel([parent.pk])
    run(worker, {"parent": "failed"})
    with pytest.raises(BadDependency, match=f"Task {parent.pk} {said}") as refused:
        submit(step("fine"), step("child", parent.pk))
    assert refused.value.members == {"pointer": "#/tasks/1/depends_on/0"}
    assert Job.objects.count() == 1
    assert not EndedParent.objects.exists()


def test_nothing_can_depend_on_what_is_not_there():
    with pytest.raises(BadDependency, match="There is no task 987654"):
        submit(step("child", 987654))
    assert not Job.objects.exists()


def test_a_failed_parent_that_is_retried_before_it_was_told_is_awaited_anew():
    worker = register()
    (parent,) = submit(step("parent"))
    run(worker, {"parent": "failed"})
    (child,) = submit(step("child", Parent(parent.pk, "run")))
    queue.retry([parent.pk])
    queue.release()
    assert place_of(child) == "dependencies 1"
    assert run(worker) == ["parent", "child"]


def test_pruned_and_deleted_tasks_take_their_edges_with_them():
    worker = register()
    parent, _ = submit(step("parent"), step("inner", "parent"))
    run(worker)
    submit(step("child", parent.pk))
    promote()
    queue.settle(after=0, limit=9)
    Job.objects.filter(pk=parent.job_id).update(finished_at=timezone.now() - timedelta(days=99))
    assert prune.prune() == 1
    assert not Dependency.objects.exists()
    assert run(worker) == ["child"]
    submit(step("a"), step("b", "a"))[0].job.delete()
    assert not Dependency.objects.exists()
    assert not Blocked.objects.exists()
    assert sound()


# -- many ------------------------------------------------------------------------------------


def test_a_thousand_go_in_and_out_by_a_few_statements(django_assert_max_num_queries):
    """Of 1,000 ends one child is told, of whose end 1,000 are: by as many statements as one."""
    worker = register(slots=1000)
    parents = [step(f"p{n}") for n in range(1000)]
    middle = step("middle", *(task.key for task in parents))
    children = [step(f"c{n}", "middle") for n in range(1000)]
    with django_assert_max_num_queries(20):
        submit(*parents, middle, *children)
    promote()
    claimed = claim(worker, 1000)
    assert len(claimed) == 1000
    with django_assert_max_num_queries(5):  # with a savepoint, its end and a lock
        queue.report([ended(task) for task in claimed[1:]])
        queue.release()
    assert Blocked.objects.get(task__key="middle").unmet == 1
    queue.report([ended(claimed[0])])
    queue.release()
    promote()
    (middle,) = claim(worker, 1000)
    with django_assert_max_num_queries(5):  # with a savepoint, its end and a lock
        queue.report([ended(middle)])
        queue.release()
    assert not Blocked.objects.exists()
    assert not EndedParent.objects.exists()
    assert sound()


def test_tasks_without_dependents_cost_no_statement(django_assert_num_queries):
    worker = register()
    submit("1", "2")
    promote()
    claimed = claim(worker)
    with django_assert_num_queries(1):
        queue.report([ended(task) for task in claimed])
    assert not EndedParent.objects.exists()


def test_many_are_told_a_batch_at_a_time(monkeypatch):
    monkeypatch.setattr(dependencies, "RELEASED_AT_ONCE", 3)
    worker = register()
    ring = [step(f"c{n}", "a") for n in range(8)]
    submit(step("a"), *ring, step("end", *(task.key for task in ring)))
    promote()
    queue.report([ended(claim(worker)[0], Outcome.FAILED)])
    left = [Blocked.objects.count()]
    while queue.release()[0]:
        left.append(Blocked.objects.count())
        assert sound()
    assert (left[0], left[-1]) == (9, 0)
    assert all(before - after <= 3 for before, after in pairwise(left))
    assert set(statuses().values()) == {"failed", "cancelled"}
    assert not EndedParent.objects.exists()


@st.composite
def dags(draw) -> list[tuple[int, str, list[tuple[int, str]]]]:
    """Tasks in some order, each with how it ends, and with some of the others it depends on."""
    count = draw(st.integers(2, 9))
    order = draw(st.permutations(range(count)))
    ends = draw(
        st.lists(st.sampled_from(["done", "done", "failed"]), min_size=count, max_size=count)
    )
    edge = st.sampled_from([None, None, "cancel", "run"])
    found = []
    for n in order:
        edges = [(parent, draw(edge)) for parent in range(n)]
        found.append((n, ends[n], [(parent, kind) for parent, kind in edges if kind]))
    return found


def fates(dag) -> dict[str, str]:
    """How each task must end."""
    found: dict[int, str] = {}
    for n, end, edges in sorted(dag):
        broken = any(found[parent] != "done" for parent, kind in edges if kind == "cancel")
        found[n] = "cancelled" if broken else end
    return {f"t{n}": status for n, status in found.items()}


@settings(
    max_examples=25,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(dag=dags(), limit=st.integers(1, 5))
def test_any_graph_ends_as_its_edges_say(dag, limit):
    names = {n: f"t{n}" for n, *_ in dag}
    with transaction.atomic(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(dependencies, "RELEASED_AT_ONCE", limit)
        worker = register()
        submit(*(step(names[n], *(Parent(names[p], kind) for p, kind in e)) for n, _, e in dag))
        order = run(worker, {names[n]: end for n, end, _ in dag})
        assert statuses() == fates(dag)
        for n, _, edges in dag:
            assert all(
                order.index(names[p]) < order.index(names[n])
                for p, _ in edges
                if {names[p], names[n]} <= set(order)
            )
        assert not EndedParent.objects.exists()
        assert sound()
        transaction.set_rollback(True)


# -- two at once -----------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("told_between", [True, False])
def test_two_parents_that_end_at_once_are_each_counted_once(order, told_between):
    worker = register()
    child, *_ = submit(step("child", "a", "b"), step("a"), step("b"))
    promote()
    claimed = claim(worker)
    ends = [lambda task=task: queue.report([ended(task)]) for task in claimed]

    commits = begin(*ends)
    queue.release()
    assert place_of(child) == "dependencies 2"
    commits[order[0]]()
    if told_between:
        queue.release()
        assert place_of(child) == "dependencies 1"
    commits[order[1]]()
    queue.release()

    assert place_of(child) == "waiting"
    queue.release()
    assert sound()


@pytest.mark.parametrize(("outcome", "more"), [("done", False), ("failed", True)])
def test_a_release_knows_whether_there_is_more_to_tell(outcome, more):
    """Of what was cancelled another waits; what was let go has nobody told yet."""
    worker, scheduler = register(), Scheduler()
    submit(step("a"), step("b", "a"), step("c", "b"))
    scheduler.tick()
    queue.report([ended(claim(worker, 1)[0], Outcome(outcome))])
    assert (scheduler.tick() >= scheduler.full_tick) == more
    assert scheduler.tick() < scheduler.full_tick
    assert statuses() == {"a": outcome} | (
        dict.fromkeys("bc", "cancelled") if more else {"b": "queued", "c": "pending"}
    )


@pytest.mark.parametrize("awaited", [True, False])
def test_who_depends_on_nothing_pays_for_no_release(awaited):
    worker, scheduler = register(), Scheduler()
    submit(step("a"), *([step("b", "a")] if awaited else []))
    scheduler.promote()
    queue.report([ended(claim(worker, 1)[0])])
    with CaptureQueriesContext(connection) as asked:
        scheduler.promote()
    assert ("release" in [query["sql"] for query in asked]) == awaited


@pytest.mark.django_db(transaction=True)
def test_one_release_at_a_time_tells():
    """Two could both read an edge before either has marked it, and count it twice."""
    worker = register()
    child, *_ = submit(step("child", "a", "b"), step("a"), step("b"))
    promote()
    queue.report([ended(claim(worker, 1)[0])])
    (commit,) = begin(dependencies.hold_up_release)
    assert queue.release() == (0, None, False)
    assert place_of(child) == "dependencies 2"
    commit()
    queue.release()
    assert place_of(child) == "dependencies 1"
    assert sound()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("first", ["submit", "end"])
@pytest.mark.parametrize("outcome", ["done", "failed"])
def test_a_parent_that_ends_while_a_job_comes_to_depend_on_it_is_not_missed(first, outcome):
    worker = register()
    (parent,) = submit(step("parent"))
    promote()
    (held,) = claim(worker)
    verbs = {
        "submit": lambda: submit(step("child", Parent(parent.pk, "run"))),
        "end": lambda: queue.report([ended(held, Outcome(outcome))]),
    }
    commits = begin(verbs.pop(first), *verbs.values())
    for commit in commits:
        commit()
    child = Task.objects.get(key="child")
    queue.release()
    assert place_of(child) == "waiting"
    assert sound()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("first", ["release", "retry"])
def test_a_retry_at_the_moment_of_the_cascade_brings_back_what_it_cancelled(first):
    worker = register()
    a, b = submit(step("a"), step("b", "a"))
    promote()
    queue.report([ended(claim(worker)[0], Outcome.FAILED)])
    verbs = {"release": lambda: queue.release(), "retry": lambda: queue.retry([a.pk])}
    commits = begin(verbs.pop(first), *verbs.values())
    for commit in commits:
        commit()
    queue.release()
    assert [place_of(t) for t in (a, b)] == ["waiting", "dependencies 1"]
    assert sound()


@pytest.mark.django_db(transaction=True)
def test_a_release_waits_for_nobody():
    """What a cancel holds is left for the next time; the rest is told."""
    worker = register()
    kept, gone, _ = submit(step("kept", "a"), step("gone", "a"), step("a"))
    promote()
    queue.report([ended(claim(worker)[0])])
    (commit,) = begin(lambda: queue.cancel([gone.pk]))
    queue.release()
    assert place_of(kept) == "waiting"
    assert EndedParent.objects.exists()
    commit()
    queue.release()
    assert not EndedParent.objects.exists()
    assert place_of(gone) == Status.CANCELLED
    assert sound()


def test_plain_tasks_can_share_a_job_with_others():
    worker = register()
    submit(shell("plain"), step("a"), step("b", "a"), shell("plain, too"))
    assert run(worker) == ["", "a", "", "b"]
