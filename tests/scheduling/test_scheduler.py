import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection, connections

from dtsproject.conf import conf
from jobs import queue
from jobs.models import Job, Lane, Ready, Task
from jobs.promotion import PROMOTION_LOCK
from scheduling.policies import Ageing
from scheduling.scheduler import WIDEST_WINDOW, Scheduler, Window
from tests.helpers import claim, ended, promote, register, running, shell, submit
from workers.models import Worker

pytestmark = pytest.mark.django_db


def test_a_window_that_runs_dry_grows_until_it_fits_the_rate_of_claims():
    window = Window(size=8, left_ready=8, at=0.0)
    sizes = []
    for tick in range(1, 12):
        sizes.append(window.resize(slots=4, ready=0, now=float(tick)))
        window.at, window.left_ready = float(tick), window.size

    assert sizes[:3] == [32, 128, 512]
    assert sizes[-1] == WIDEST_WINDOW
    assert (
        window.resize(slots=4, ready=WIDEST_WINDOW - 1000, now=12.0) == (100 + WIDEST_WINDOW) // 2
    )


def test_a_window_that_stays_full_shrinks_to_twice_its_slots():
    window = Window(size=WIDEST_WINDOW, left_ready=50, at=0.0)
    for tick in range(1, 20):
        window.resize(slots=4, ready=50, now=float(tick))
        window.at = float(tick)

    assert window.size == 8


@pytest.mark.django_db(transaction=True)
def test_the_window_of_an_idle_lane_stays_narrow_and_its_scheduler_quiet():
    worker, scheduler = register(slots=4), Scheduler()
    for n in range(3):  # one at a time, each claimed before the next tick
        submit(f"task {n}")
        assert scheduler.promote() == 1
        assert len(claim(worker)) == 1
        for _ in range(2):
            scheduler.promote()
            assert [window.size for window in scheduler.windows.values()] == [8]
            assert scheduler.interval_seconds == conf().scheduler_interval_seconds


def test_a_tick_promotes_up_to_the_window_and_settles_finished_jobs():
    worker = register(slots=3)
    (task,) = running("true", worker=worker)
    queue.report([ended(task)])
    submit(*["true"] * 50)

    moved = Scheduler().tick()

    ready = Ready.objects.count()
    assert moved == ready + 1
    assert 6 <= ready <= 12
    assert Job.objects.filter(finished_at__isnull=False).count() == 1


def test_order_holds_across_lanes_for_one_worker():
    submit(*[shell("plain", priority=1)] * 5)
    submit(*[shell("gpu", priority=5, requires=["gpu"])] * 5)
    worker = register(capabilities=["gpu"], slots=10)
    promote()

    commands = [task.payload["cmd"] for task in claim(worker, 10)]

    assert commands == ["gpu"] * 5 + ["plain"] * 5


def test_ageing_starts_a_task_before_all_that_come_later_than_its_bound(settings, monkeypatch):
    """The bound is A seconds a step of priority; strictly by priority it would be the last."""
    settings.DTS = {**settings.DTS, "POLICY": "scheduling.policies.Ageing"}
    monkeypatch.setattr(Ageing, "seconds_per_priority", 1)
    submit("low")
    submit(shell("within its bound", priority=1))
    time.sleep(1.1)
    submit(*[shell("past its bound", priority=1)] * 30)
    worker = register(slots=1)
    started = []
    while len(started) < 4:
        promote()
        started += [task.payload["cmd"] for task in claim(worker, 1)]

    assert started == ["within its bound", "low", "past its bound", "past its bound"]


def test_a_lane_whose_workers_fell_silent_is_not_promoted():
    register()
    Worker.objects.update(last_heartbeat="2020-01-01T00:00Z")
    submit("true")

    assert promote() == 0


def test_a_window_in_order_is_not_recalled():
    submit(*["true"] * 30)
    register(slots=2)
    scheduler = Scheduler()
    scheduler.promote()
    before = list(Ready.objects.order_by("seq").values_list("task_id", "seq"))
    submit("true")

    scheduler.promote()

    assert (
        list(Ready.objects.order_by("seq").values_list("task_id", "seq"))[: len(before)] == before
    )


@pytest.mark.django_db(transaction=True)
def test_while_another_scheduler_promotes_this_one_skips():
    submit("true")
    register()
    locked, release = threading.Event(), threading.Event()

    def other_scheduler():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s, %s)", PROMOTION_LOCK)
            locked.set()
            release.wait(10)
            # Closing alone does not wait for the server to let it go.
            cursor.execute("SELECT pg_advisory_unlock(%s, %s)", PROMOTION_LOCK)
        connections.close_all()

    thread = threading.Thread(target=other_scheduler)
    thread.start()
    locked.wait(10)
    try:
        assert Scheduler().promote() == 0
    finally:
        release.set()
        thread.join()
    assert Scheduler().promote() == 1


@pytest.mark.django_db(transaction=True)
def test_concurrent_claims_share_the_work_and_never_a_task():
    submit(*["true"] * 200)
    workers = [register(f"w{n}", slots=100) for n in range(4)]
    while Ready.objects.count() < 200:
        promote()

    def claim_all(worker):
        claimed = []
        try:
            while tasks := claim(worker, 7):
                claimed += [task.task_id for task in tasks]
        finally:
            connections.close_all()
        return claimed

    with ThreadPoolExecutor(len(workers)) as pool:
        shares = list(pool.map(claim_all, workers))

    everything = [task_id for share in shares for task_id in share]
    assert len(everything) == len(set(everything)) == 200
    assert Task.objects.filter(status="in_progress").count() == 200


@pytest.mark.django_db(transaction=True)
def test_cancel_finds_a_task_that_promotion_and_claims_keep_moving():
    tasks = submit(*["true"] * 60)
    lane = Lane.objects.get().pk
    worker = register(slots=5)
    stop = threading.Event()

    def churn():
        while not stop.is_set():
            promote()
            for task in claim(worker, 3):
                queue.report([ended(task, "released")])
            queue.recall({lane: (-(2**62), 0)})
        connections.close_all()

    threads = [threading.Thread(target=churn) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for task in tasks:
            assert queue.cancel([task.pk]), task.pk
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    promote()
    for task in claim(worker, 100):
        queue.report([ended(task, "released")])

    left = Task.objects.exclude(status="cancelled").values_list("pk", "cancel_requested_at")
    assert all(asked for _, asked in left)
