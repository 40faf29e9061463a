"""Limits: never exceeded, and never in the way of what they do not concern."""

import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext

from jobs import promotion, prune, queue
from jobs.choice import Contender, choose
from jobs.models import Blocked, Bucket, Lease, Permit, Ready, Task, Waiting
from scheduling.scheduler import Scheduler
from tests.helpers import claim, ended, promote, register, shell, submit
from tests.webs import place_of, sound

pytestmark = pytest.mark.django_db


def keyed(n: int, key: str = "db", **more) -> list[Task]:
    return submit(*[shell(f"{key} {i}", concurrency_key=key) for i in range(n)], **more)


def live(key: str = "db") -> int:
    held = Task.objects.filter(status__in=("queued", "in_progress"))
    return held.filter(concurrency_key=key).count()


def test_no_more_of_a_key_than_its_limit_are_queued_or_run():
    queue.limit_key("db", {"max_running": 2})
    worker = register(slots=10)
    tasks = keyed(5)
    others = submit("1", "2", "3")

    promote()

    assert [place_of(task) for task in tasks] == ["ready", "ready", *["limit db"] * 3]
    assert {place_of(task) for task in others} == {"ready"}
    claimed = claim(worker)
    assert promote() == 0
    queue.report([ended(task) for task in claimed])
    assert promote() == 2
    assert [place_of(task) for task in tasks[2:]] == ["ready", "ready", "limit db"]
    assert sound()


def test_what_is_given_back_or_lost_still_counts_and_what_is_retried_later_does_not():
    queue.limit_key("db", {"max_running": 1})
    worker = register()
    submit(shell("1", concurrency_key="db", max_retries=1))
    keyed(1)
    promote()

    for outcome in ("released", "lost"):
        (task,) = claim(worker)
        queue.report([ended(task, outcome)])
        assert (promote(), live()) == (0, 1)
    (task,) = claim(worker)
    queue.report([ended(task, "failed")])
    assert (promote(), live()) == (1, 1)
    assert Ready.objects.get().pk != task.task_id


def test_keys_without_a_limit_are_free_and_leave_nothing_behind():
    queue.limit_key("db", {"max_running": 1})
    register(slots=10)
    keyed(4, "web")

    assert promote() == 4
    assert not Permit.objects.exists()


def test_what_ran_before_its_key_had_a_limit_counts():
    register(slots=10)
    tasks = keyed(3)
    promote()
    queue.limit_key("db", {"max_running": 4})
    tasks += keyed(3)

    assert promote() == 1
    queue.cancel([tasks[0].pk, tasks[1].pk])
    assert promote() == 2
    assert sound()


def test_a_raised_limit_lets_more_go_and_a_lowered_one_holds_from_then_on():
    queue.limit_key("db", {"max_running": 1})
    worker = register(slots=10)
    keyed(6)
    promote()
    queue.limit_key("db", {"max_running": 3})
    assert (promote(), live()) == (2, 3)

    queue.limit_key("db", {"max_running": 2})
    assert (promote(), live()) == (0, 3)
    for left in (2, 2, 2):
        (task,) = claim(worker, 1)
        queue.report([ended(task)])
        promote()
        assert live() == left
    assert sound()


def test_without_its_limit_all_that_it_held_back_may_go():
    queue.limit_key("db", {"max_running": 1, "rate_count": 5, "rate_seconds": 60})
    register(slots=10)
    keyed(4)
    promote()
    assert (Permit.objects.count(), Bucket.objects.count()) == (1, 1)

    assert queue.unlimit_key("db")

    assert not queue.unlimit_key("db")
    assert not Blocked.objects.exists()
    assert promote() == 3
    assert not Permit.objects.exists()
    assert not Bucket.objects.exists()
    assert sound()


def test_a_star_gives_each_key_a_limit_of_its_own_and_the_closest_holds():
    queue.limit_key("tenant:*", {"max_running": 1})
    queue.limit_key("tenant:a*", {"max_running": 2})
    queue.limit_key("tenant:abc", {"max_running": 3})
    register(slots=20)
    for key in ("tenant:x", "tenant:y", "tenant:ab", "tenant:abc", "other"):
        keyed(4, key)
    promote()

    keys = ("tenant:x", "tenant:y", "tenant:ab", "tenant:abc", "other")
    assert [live(key) for key in keys] == [1, 1, 2, 3, 4]
    queue.unlimit_key("tenant:abc")
    assert promote() == 0
    queue.unlimit_key("tenant:a*")
    queue.unlimit_key("tenant:*")
    promote()
    assert [live(key) for key in keys] == [4] * 5
    assert sound()


def test_what_is_over_a_limit_is_not_in_the_way_of_what_is_behind_it():
    queue.limit_key("db", {"max_running": 1})
    register(slots=2)
    keyed(3000)
    (behind,) = submit("behind")

    scheduler = Scheduler()
    ticks = 1
    while scheduler.promote() < 1000 and place_of(behind) == "waiting":
        ticks += 1

    assert place_of(behind) == "ready"
    assert ticks <= 2
    assert Blocked.objects.count() == 2999


def test_a_line_keeps_its_order_and_is_not_overtaken_by_what_comes_later():
    queue.limit_key("db", {"max_running": 1})
    worker = register(slots=1)
    submit(shell("low", concurrency_key="db"), shell("high", concurrency_key="db", priority=5))
    promote()
    order = []
    for number in range(6):
        (task,) = claim(worker)
        order.append(task.payload["cmd"])
        submit(shell(f"later {number}", concurrency_key="db"))
        if number == 2:
            submit(shell("urgent", concurrency_key="db", priority=50))
            promote()  # into the line
        queue.report([ended(task)])
        promote()

    assert order == ["high", "low", "later 0", "urgent", "later 1", "later 2"]


def test_a_task_in_a_line_is_reordered_cancelled_and_paused_like_others():
    queue.limit_key("db", {"max_running": 1})
    worker = register()
    _, second, third = keyed(3)
    (paused,) = keyed(1)
    promote()
    queue.prioritise([third.pk], 9)
    queue.pause_job(paused.job_id)
    assert place_of(paused) == f"paused {paused.job_id}"
    queue.cancel([second.pk])

    (task,) = claim(worker)
    queue.report([ended(task)])
    promote()

    assert place_of(third) == "ready"
    queue.cancel([third.pk])
    assert promote() == 0
    queue.resume_job(paused.job_id)
    assert promote() == 1
    assert place_of(paused) == "ready"
    assert queue.retry([second.pk, third.pk])
    promote()
    # The urgent one goes first: what was queued is recalled, and put aside.
    assert [place_of(t) for t in (second, third, paused)] == ["limit db", "ready", "limit db"]
    assert Task.objects.get(pk=paused.pk).status == "pending"
    assert sound()


def test_a_rate_bounds_what_is_promoted_by_the_clock_of_the_database():
    queue.limit_key("mail", {"rate_count": 2, "rate_seconds": 60})
    worker = register(slots=10)
    keyed(6, "mail")
    assert promote() == 2
    queue.report([ended(task) for task in claim(worker)])
    assert promote() == 0

    Bucket.objects.update(filled_at=datetime.now(UTC) - timedelta(seconds=31))
    assert promote() == 1
    Bucket.objects.update(filled_at=datetime.now(UTC) - timedelta(hours=1))
    assert promote() == 2  # never more at once, however long nothing was asked for
    Bucket.objects.update(filled_at=datetime.now(UTC) + timedelta(hours=1))
    assert promote() == 0  # a clock that was set back gives nothing
    assert sound()


def test_a_bucket_that_is_full_again_whatever_its_rate_is_pruned():
    queue.limit_key("mail", {"rate_count": 2, "rate_seconds": 60})
    register(slots=10)
    keyed(4, "mail")
    promote()
    assert prune.prune_buckets() == 0

    Bucket.objects.update(filled_at=datetime.now(UTC) - timedelta(hours=25))
    assert prune.prune_buckets() == 1
    assert promote() == 2


def test_a_recall_uses_nothing_of_a_rate():
    queue.limit_key("mail", {"rate_count": 1, "rate_seconds": 3600})
    register(slots=1)
    (mail,) = keyed(1, "mail")
    promote()
    submit(*[shell("urgent", priority=9)] * 2)
    promote()
    assert place_of(mail) == "waiting"

    queue.cancel(Ready.objects.values_list("pk", flat=True))
    promote()

    assert place_of(mail) == "ready"


def test_no_more_of_a_queue_than_its_limit_are_queued_or_run():
    queue.limit_queue("a", 2)
    worker = register(slots=10, capabilities=["gpu"])
    submit("1", "2", shell("3", requires=["gpu"]), queue="a")
    others = submit("1", "2", "3")
    promote()

    ready = Ready.objects.filter(lane__queue="a")
    assert ready.count() == 2
    assert {place_of(task) for task in others} == {"ready"}
    assert Waiting.objects.count() == 1
    claimed = claim(worker)
    assert promote() == 0
    queue.report([ended(task) for task in claimed])
    assert promote() == 1
    submit(*["more"] * 3, queue="a")
    assert promote() == 1
    queue.limit_queue("a", None)
    assert promote() == 2


def test_without_limits_promotion_asks_nothing_more():
    register(slots=10)
    submit(shell("x", concurrency_key="db"))
    with CaptureQueriesContext(connection) as asked:
        Scheduler().promote()

    ours = [query["sql"] for query in asked if " " not in query["sql"]]
    assert ours == ["window", "promote"]


def test_many_lines_are_all_visited(monkeypatch):
    monkeypatch.setattr(promotion, "LINES_AT_ONCE", 3)
    queue.limit_key("*", {"max_running": 1})
    worker = register(slots=100)
    for number in range(10):
        keyed(2, f"k{number}")
    scheduler = Scheduler()
    scheduler.promote()
    assert Ready.objects.count() == 10
    queue.report([ended(task) for task in claim(worker, 10)])
    newcomers = [keyed(1, f"k{number}")[0] for number in range(10)]

    for _ in range(4):
        scheduler.promote()

    assert {place_of(task) for task in newcomers} == {f"limit k{n}" for n in range(10)}
    assert Ready.objects.count() == 10
    assert sound()


def contender(task_id: int, lane: int = 1, *, waits: bool = True, **more) -> Contender:
    given = {"queue": "q", "queue_room": None, "key": None, "room": None}
    given |= {"tokens": None, "paid": False, "at": datetime.now(UTC)}
    return Contender(task_id, 1, task_id, lane, waits, **{**given, **more})


def test_the_choice_leaves_no_gap_behind_its_mark():
    found = choose([contender(n) for n in (1, 2, 3)], {1: 2}, 10)
    assert ([c.task_id for c in found.go], found.reached) == ([1, 2], {1: (2, 1, 2)})

    full = contender(2, key="k", room=0)
    found = choose([contender(1), full, contender(3)], {1: 2}, 10)
    assert ([c.task_id for c in found.go], found.reached) == ([1, 3], {1: (3, 1, 3)})
    assert [c.task_id for c in found.aside] == [2]
    # It is put aside only where something behind it could have its place.
    found = choose([contender(1), full, contender(3)], {1: 1}, 10)
    assert (found.aside, found.reached) == ([], {1: (1, 1, 1)})


def test_of_a_lane_where_a_head_was_put_aside_no_line_goes_beyond_the_last_head():
    line = contender(9, waits=False, key="other", room=1)
    full = contender(2, key="k", room=0)

    assert [c.task_id for c in choose([full, line], {1: 5}, 10).go] == []
    assert [c.task_id for c in choose([contender(2), line], {1: 5}, 10).go] == [2, 9]


@pytest.mark.django_db(transaction=True)
def test_two_schedulers_and_workers_that_lose_and_give_back_never_exceed_a_limit():
    """What is live is read in one snapshot, again and again, while all of it moves."""
    queue.limit_key("db", {"max_running": 2})
    queue.limit_queue("default", 5)
    workers = [register(f"w{n}", slots=8) for n in range(2)]
    keyed(150)
    submit(*["true"] * 150)
    stop, faults = threading.Event(), []

    def around(act) -> None:
        try:
            while not stop.is_set():
                act()
        except Exception as error:
            faults.append(error)
        finally:
            connections.close_all()

    def work(worker, outcomes=("released", "lost", "done", "done")) -> None:
        claimed = claim(worker, 3)
        for n, task in enumerate(claimed):
            queue.report([ended(task, outcomes[(n + task.task_id) % 4])], proven=False)
        lane = Ready.objects.values_list("lane", flat=True).first()
        if lane and not claimed:
            queue.recall({lane: (-(2**62), -(2**62))})

    schedulers = [Scheduler(), Scheduler()]
    acts = [scheduler.promote for scheduler in schedulers]
    acts += [lambda worker=worker: work(worker) for worker in workers]
    threads = [threading.Thread(target=around, args=[act]) for act in acts]
    for thread in threads:
        thread.start()
    most, most_of_queue, until = 0, 0, time.monotonic() + 4
    while time.monotonic() < until and Task.objects.live().exists():
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FILTER (WHERE concurrency_key = 'db'), count(*) FROM tasks"
                " WHERE id IN (SELECT task_id FROM ready UNION SELECT task_id FROM leases)"
            )
            seen, of_queue = cursor.fetchone()
        most, most_of_queue = max(most, seen), max(most_of_queue, of_queue)
    stop.set()
    for thread in threads:
        thread.join()

    assert not faults
    assert (most, most_of_queue) == (2, 5)
    assert Task.objects.filter(final_status="done").count() > 5
    assert not Lease.objects.exists() or sound()
