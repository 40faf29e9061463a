"""PostgreSQL away, restarted, frozen: everybody waits, goes on, and nothing is lost or doubled."""

import json
import os
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from dtsproject.errors import Unreachable
from dtsproject.loop import Loop
from tests.chaos.installation import API, Installation, frozen, watch
from tests.helpers import wait_until

# Longer than the lease of the tests; by hand: DTS_TEST_OUTAGE_SECONDS=60 pytest tests/chaos
OUTAGE_SECONDS = float(os.environ.get("DTS_TEST_OUTAGE_SECONDS", "8"))
WORKERS = 6
PATHS = ["/api/v1/jobs", "/api/v1/tasks/1", "/readyz", "/metrics", "/admin/", "/docs"]
KEEPING_HOUSE = """
SELECT FROM pg_stat_activity
WHERE application_name = 'dts recovery' AND wait_event_type = 'Lock'
"""
JOB = {"name": "n", "tasks": [{"payload": {"cmd": "true"}}]}


@pytest.fixture
def dts():
    made = Installation()
    try:
        made.cluster.start_child()
        made.migrate()
        yield made
    finally:
        made.end()


def assert_says_it_is_away(dts: Installation) -> None:
    cookie = {"Cookie": "sessionid=abcdefghijklmnopqrstuvwxyz012345"}
    with ThreadPoolExecutor(len(PATHS) + 1) as pool:
        answers = dict(
            zip(PATHS, pool.map(lambda path: dts.ask(path, **cookie), PATHS), strict=True)
        )
        answers["submit"] = dts.ask("/api/v1/jobs", JOB)
    assert dts.ask("/healthz")[0] == 200
    for path, (status, headers, body) in answers.items():
        assert status == 503, (path, status, body)
        assert int(headers["Retry-After"]) > 0
        assert headers["Content-Type"] == "application/problem+json"
        assert json.loads(body)["code"] == "unavailable"


def test_an_outage_costs_no_task_and_leaves_no_connection(dts):
    """Some tasks end while the database is away; some outlive their lease, and run again."""
    runs = dts.home / "runs"
    dts.api()
    processes = [dts.scheduler(), dts.recovery()]
    processes += [dts.worker(f"w{n}", "--slots", "2") for n in range(WORKERS)]
    wait_until(lambda: dts.connections().get("dts worker", 0) == 3 * WORKERS, 60)
    started = f"echo $DTS_TASK_ID >> {runs}"
    assert dts.submit(*[f"{started}; sleep 1.5; echo $DTS_TASK_ID >> {runs}.ended"] * WORKERS)
    assert dts.submit(*[f"{started}; test $DTS_ATTEMPT != 1 || sleep 1000"] * WORKERS)
    wait_until(lambda: runs.exists() and len(runs.read_text().split()) == 2 * WORKERS)
    assert dts.submit(*[started] * 200)
    before = dts.connections()

    dts.cluster.stop()
    away_since = time.monotonic()
    assert_says_it_is_away(dts)
    spools = dts.folder / "workers"
    wait_until(lambda: any(spools.glob("*.spool")), 10)
    time.sleep(max(0.0, OUTAGE_SECONDS - (time.monotonic() - away_since)))
    assert_says_it_is_away(dts)
    assert dts.alive()
    dts.cluster.start_child()
    seen = watch(5, dts.connections)

    wait_until(dts.over, 60)
    assert dts.alive()
    assert dts.endings() == {"done": (2 * WORKERS + 200, 1)}
    assert dts.rows("SELECT FROM attempts WHERE outcome = 'lost'") == []
    ran = Counter(runs.read_text().split())
    ended = Counter((dts.home / "runs.ended").read_text().split())
    # Once each; twice only what had to be stopped, its lease being over.
    assert sum(ran.values()) == 200 + 3 * WORKERS
    assert set(ended.values()) == {1}
    assert all(ran[task] == 1 for task in ended)
    wait_until(lambda: not any(spools.glob("*.spool")))
    for name, number in before.items():
        most = max(counted.get(name, 0) for counted in seen)
        assert most <= (8 if name == API else number), (name, before, seen[-1])
    assert "Traceback" not in dts.log_of("run_worker") + dts.log_of("run_scheduler")


def test_what_a_killed_worker_had_finished_is_delivered_by_its_next_boot(dts):
    dts.api()
    dts.scheduler()
    worker = dts.worker("w1", "--slots", "4")
    fine = f"echo out; sleep 1; echo $DTS_TASK_ID >> {dts.home}/ended"
    assert dts.submit(fine, f"{fine}; exit 3", "sleep 1000")
    wait_until(lambda: dts.rows("SELECT FROM leases HAVING count(*) = 3"))

    dts.cluster.stop()
    spool = dts.folder / "workers" / "w1.spool"
    wait_until(lambda: spool.exists() and spool.read_bytes().count(b"\n") >= 4)
    worker.kill()
    worker.wait()
    dts.cluster.start_child()
    dts.worker("w1", "--slots", "4")
    wait_until(lambda: not dts.rows("SELECT FROM leases WHERE fencing_token = 1"))

    attempts = dts.rows("SELECT number, outcome FROM attempts ORDER BY task_id")
    assert attempts == [(1, "done"), (1, "failed"), (1, "lost")]
    (first, *_) = dts.rows("SELECT result_text, task_id FROM tasks JOIN log_chunks ON task_id = id")
    assert first[0] == "out\n"
    assert len((dts.home / "ended").read_text().split()) == 2
    wait_until(lambda: not spool.exists())


def test_what_is_delivered_too_late_is_refused_and_dropped(dts):
    dts.api()
    dts.scheduler()
    worker = dts.worker("w1", "--slots", "1")
    assert dts.submit(f"sleep 1; echo $DTS_ATTEMPT >> {dts.home}/ended")
    wait_until(lambda: dts.rows("SELECT FROM leases"))
    dts.cluster.stop()
    spool = dts.folder / "workers" / "w1.spool"
    wait_until(lambda: spool.exists() and spool.stat().st_size)
    worker.kill()
    worker.wait()
    dts.cluster.start_child()
    dts.recovery()
    dts.worker("w2")
    wait_until(dts.over, 40)

    dts.worker("w1")
    wait_until(lambda: "state=lease_lost" in dts.log_of("run_worker"))

    assert not spool.exists()
    assert dts.endings() == {"done": (1, 1)}
    assert dts.rows("SELECT outcome FROM attempts ORDER BY id") == [("lost",), ("done",)]


def test_a_drain_ends_without_the_database(dts):
    dts.api()
    dts.scheduler()
    worker = dts.worker("w1", "--slots", "4", "--drain-seconds", "1")
    assert dts.submit("sleep 1", "trap '' TERM; sleep 1000")
    wait_until(lambda: dts.rows("SELECT FROM leases HAVING count(*) = 2"))
    dts.cluster.stop()

    worker.terminate()
    assert worker.wait(20) == 0

    dts.cluster.start_child()
    dts.worker("w1", "--slots", "1")
    wait_until(lambda: dts.rows("SELECT FROM attempts HAVING count(*) >= 2"))
    attempts = dts.rows("SELECT outcome FROM attempts WHERE fencing_token = 1 ORDER BY task_id")
    assert attempts == [("done",), ("released",)]


def test_a_frozen_database_holds_up_nobody_for_ever():
    """Not even recovery, which is in the midst of its housekeeping: it waits for a lock there."""
    dts = Installation(DTS_DATABASE_TIMEOUT_SECONDS="1")
    try:
        dts.cluster.start_child()
        dts.migrate()
        with psycopg.connect(dts.cluster.url()) as busy:
            busy.execute("LOCK TABLE log_chunks IN SHARE UPDATE EXCLUSIVE MODE")
            dts.api()
            processes = [dts.scheduler(), dts.recovery(), dts.worker("w1")]
            wait_until(lambda: dts.submit("true"))
            wait_until(dts.over)
            wait_until(lambda: dts.rows(KEEPING_HOUSE))
            before = dts.connections()
            with frozen(dts.cluster):
                assert_says_it_is_away(dts)
                for kind in ("run_scheduler", "run_worker", "run_recovery"):
                    wait_until(lambda kind=kind: "no_answer" in dts.log_of(kind), 40)
            wait_until(lambda: dts.submit("sleep 1000"), 30)
            wait_until(lambda: dts.rows("SELECT FROM leases"), 30)
            processes.pop().kill()
            dts.worker("w2")
            # Leases go before the housekeeping, which still could not be done.
            wait_until(lambda: dts.rows("SELECT FROM attempts WHERE outcome = 'lost'"), 40)
        assert all(process.poll() is None for process in processes)
        wait_until(lambda: Counter(dts.connections()) <= Counter(before | {API: 8}), 10)
    finally:
        dts.end()


class Away(Loop):
    interval_seconds = 0.01

    def __init__(self) -> None:
        super().__init__()
        self.tries: list[float] = []

    def tick(self) -> int:
        self.tries.append(time.monotonic())
        raise Unreachable("away")


def test_nothing_shortens_a_loops_backoff_and_no_two_loops_keep_step():
    loops = [Away() for _ in range(10)]
    threads = [threading.Thread(target=loop.run) for loop in loops]
    for thread in threads:
        thread.start()
    until = time.monotonic() + 2
    while time.monotonic() < until:
        for loop in loops:
            loop.wake()
        time.sleep(0.005)
    for loop, thread in zip(loops, threads, strict=True):
        loop.stop()
        thread.join()

    # 0.1 + 0.2 + 0.4 + ... give or take a half each: six tries in 2 s, or a few more with luck.
    assert all(3 <= len(loop.tries) <= 10 for loop in loops)
    third = sorted(loop.tries[2] for loop in loops)
    assert third[-1] - third[0] > 0.05
