"""Agent, guard and warden dying, frozen or cut off, in real workers with real tasks."""

import contextlib
import os
import signal
import time
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from django.db import connection, transaction

from jobs import queue
from jobs.models import Attempt, Lease, Task
from jobs.specs import TaskSpec
from tests.helpers import promote, register, shell, submit, wait_until
from tests.processes.test_workers import alive, finished, fresh, pids_in
from workers.guard_proc import children
from workers.models import State, Worker

pytestmark = pytest.mark.django_db(transaction=True)

# Runs for long the first time, and not at all the second.
ONCE = "echo $$ >> {0}/pids; test $DTS_ATTEMPT = 2 || sleep 100"


def warden_and_guard(worker) -> tuple[int, int]:
    (warden,) = children(worker.pid)
    (guard,) = children(warden)
    return warden, guard


def send(number: signal.Signals, *pids: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def outcomes() -> list[tuple]:
    """How each attempt ended and under which worker, in order."""
    return list(Attempt.objects.order_by("pk").values_list("outcome", "worker__name"))


@pytest.fixture
def first_pid(fleet, tmp_path):
    """Starts all but the worker, twice; gives a function that waits for the first process."""
    for _ in range(2):
        fleet.scheduler()
        fleet.recovery()

    def wait() -> int:
        wait_until(lambda: pids_in(tmp_path / "pids"))
        return pids_in(tmp_path / "pids")[0]

    return wait


@pytest.mark.parametrize("victims", ["agent", "guard", "agent guard"])
def test_no_process_outlives_its_worker_or_guard_by_two_seconds(fleet, tmp_path, victims):
    log = f"echo $! >> {tmp_path}/pids"
    submit(*[f"setsid sleep 1000 & {log}; echo $$ >> {tmp_path}/pids; sleep 1000"] * 8)
    fleet.scheduler()
    worker = fleet.worker("w1", "--slots", "8")
    wait_until(lambda: len(pids_in(tmp_path / "pids")) == 16)
    pids = pids_in(tmp_path / "pids")
    assert all(alive(pid) for pid in pids)
    _, guard = warden_and_guard(worker)
    chosen = [{"agent": worker.pid, "guard": guard}[victim] for victim in victims.split()]

    send(signal.SIGSTOP, worker.pid)  # so that it claims nothing anew meanwhile
    send(signal.SIGKILL, *chosen)

    wait_until(lambda: not any(alive(pid) for pid in pids), 2)


def test_a_frozen_machine_is_the_one_exception(fleet, tmp_path, first_pid):
    """Nobody there can kill; on thaw the tree dies, and what it reports is refused."""
    (task,) = submit(shell(ONCE.format(tmp_path)))
    worker = fleet.worker("frozen")
    first = first_pid()
    frozen = (*warden_and_guard(worker), worker.pid)  # in this order: the warden wakes the guard

    send(signal.SIGSTOP, *frozen)
    fleet.worker("second")
    wait_until(lambda: finished([task]), 40)
    assert alive(first)
    send(signal.SIGCONT, *frozen)

    wait_until(lambda: not alive(first), 5)
    wait_until(lambda: "state=lease_lost" in fleet.logs())
    wait_until(lambda: Worker.objects.get(name="frozen").state == State.ONLINE)
    assert fresh(task).status == "done"
    assert outcomes() == [("lost", "frozen"), ("done", "second")]


def test_a_guard_and_warden_that_hang_are_replaced_before_the_task_is_taken(
    fleet, tmp_path, first_pid
):
    """Its agent is well and goes on renewing."""
    (task,) = submit(shell(ONCE.format(tmp_path)))
    worker = fleet.worker("w1")
    first = first_pid()

    send(signal.SIGSTOP, *warden_and_guard(worker))
    wait_until(lambda: not alive(first), 15)
    assert fresh(task).attempt == 1
    wait_until(lambda: finished([task]))

    assert outcomes() == [("lost", "w1"), ("done", "w1")]
    assert worker.poll() is None


def test_nothing_frozen_outlives_the_fleet(fleet, first_pid, tmp_path):
    """However early a test ends, it leaves none behind."""
    submit(shell(ONCE.format(tmp_path)))
    worker = fleet.worker("w1")
    first = first_pid()
    frozen = warden_and_guard(worker)
    send(signal.SIGSTOP, *frozen)

    fleet.end()

    left = [pid for pid in (*frozen, first) if alive(pid)]
    send(signal.SIGCONT, *frozen)
    assert not left


def test_the_next_start_kills_what_outlived_agent_guard_and_warden(fleet, tmp_path):
    """And thereby proves its former boot dead: what that held is queued again at once."""
    (task,) = submit(shell(ONCE.format(tmp_path)))
    fleet.scheduler()  # and no recovery
    worker = fleet.worker("w1")
    wait_until(lambda: pids_in(tmp_path / "pids"))
    (first,) = pids_in(tmp_path / "pids")
    all_three = (*warden_and_guard(worker), worker.pid)

    send(signal.SIGSTOP, *all_three)  # so that none sees another die
    send(signal.SIGKILL, *all_three)
    worker.wait()
    time.sleep(0.5)
    assert alive(first)
    fleet.worker("w1")
    wait_until(lambda: finished([task]))

    assert not alive(first)
    assert outcomes() == [("lost", "w1"), ("done", "w1")]


@pytest.fixture
def cut_off(fleet):
    """A role of its own for a worker, its URL, and how to cut it off and let it back."""
    with connection.cursor() as cursor:
        cursor.execute("CREATE ROLE cut_off SUPERUSER LOGIN PASSWORD 'cut_off'")

    def cut() -> None:
        with connection.cursor() as cursor:
            cursor.execute("ALTER ROLE cut_off NOLOGIN")
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'cut_off'"
            )

    def let_back() -> None:
        with connection.cursor() as cursor:
            cursor.execute("ALTER ROLE cut_off LOGIN")

    parts = urlsplit(fleet.environment["DATABASE_URL"])
    host = parts.netloc.rpartition("@")[2]
    yield urlunsplit(parts._replace(netloc=f"cut_off:cut_off@{host}")), cut, let_back
    fleet.end()
    with connection.cursor() as cursor:
        cursor.execute("DROP ROLE cut_off")


def test_a_worker_cut_off_from_the_database_loses_its_trees_before_its_lease(
    cut_off, fleet, tmp_path, first_pid
):
    url, cut, let_back = cut_off
    (task,) = submit(shell(ONCE.format(tmp_path)))
    fleet.start("run_worker", "--name", "cut-off", DATABASE_URL=url)
    first = first_pid()

    cut()
    wait_until(lambda: not alive(first), 10)
    assert Lease.objects.filter(worker__name="cut-off").exists()
    fleet.worker("second")
    wait_until(lambda: finished([task]), 40)
    let_back()

    wait_until(lambda: Worker.objects.get(name="cut-off").state == State.ONLINE)
    wait_until(lambda: "state=lease_lost" in fleet.logs())
    assert outcomes() == [("lost", "cut-off"), ("done", "second")]


def test_what_ends_while_its_worker_is_cut_off_is_delivered_when_it_is_back(
    cut_off, fleet, tmp_path, first_pid
):
    url, cut, let_back = cut_off
    (task,) = submit(shell(f"echo $$ >> {tmp_path}/pids; sleep 1; echo kept"))
    # Long enough for a busy machine: the task is to end by itself.
    fleet.start("run_worker", "--name", "cut-off", DATABASE_URL=url, DTS_LEASE_SECONDS="20")
    first = first_pid()

    cut()
    wait_until(lambda: not alive(first))
    tries = fleet.logs().count("loop=Agent")
    wait_until(lambda: fleet.logs().count("loop=Agent") > tries + 1)  # in vain, with its ending
    let_back()
    wait_until(lambda: finished([task]))

    assert (fresh(task).result_text, outcomes()) == ("kept\n", [("done", "cut-off")])


def test_nothing_is_started_from_a_claim_that_was_answered_too_late(fleet, tmp_path):
    """Its lease, counted from the asking, may be over before the guard could kill."""
    (task,) = submit(shell(f"echo $$ >> {tmp_path}/pids"))
    register("somebody")  # for whom it is queued
    promote()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("LOCK TABLE ready")
        fleet.worker("w1", "--slots", "2")
        wait_until(lambda: waiting_for_a_lock() and Worker.objects.filter(name="w1"))
        time.sleep(4)
    wait_until(lambda: finished([task]))

    assert "claim_too_slow" in fleet.logs()
    assert outcomes() == [("released", "w1"), ("done", "w1")]
    assert len(pids_in(tmp_path / "pids")) == 1


def waiting_for_a_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return cursor.fetchone()[0] > 0


def test_a_task_that_kills_its_worker_three_times_is_poison(fleet, tmp_path):
    """Each time a supervisor starts it anew under its name, which proves the death."""
    (task,) = submit(shell(f"kill -9 $(cat {tmp_path}/agent)"))
    fleet.scheduler()
    for _ in range(3):
        worker = fleet.worker("w1")
        draft = Path(tmp_path / "draft")
        draft.write_text(str(worker.pid))
        draft.rename(tmp_path / "agent")
        assert worker.wait(30) == -signal.SIGKILL
    survivor = fleet.worker("w1")
    wait_until(lambda: finished([task]), 30)

    row = fresh(task)
    assert (row.status, row.loss_count) == ("failed", 3)
    assert row.result_text.startswith("poison")
    assert outcomes() == [("lost", "w1")] * 3
    assert survivor.poll() is None


def test_what_its_worker_cannot_end_is_ended_by_recovery(fleet, first_pid):
    """A function in the agent itself: nobody kills it, and its late report is refused."""
    payload = {"function": "time.sleep", "args": [15]}
    (task,) = submit(TaskSpec(payload=payload, kind="python", timeout_seconds=1))
    fleet.worker("w1", "--executor", "inline")

    wait_until(lambda: finished([task]), 14)

    assert (fresh(task).status, outcomes()) == ("failed", [("timed_out", "w1")])
    wait_until(lambda: "state=lease_lost" in fleet.logs())
    assert (fresh(task).status, outcomes()) == ("failed", [("timed_out", "w1")])


def test_a_cancelled_tree_is_confirmed_dead_two_seconds_after_its_grace(fleet, tmp_path):
    cmd = f"trap '' TERM; setsid sleep 100 & echo $! $$ > {tmp_path}/pids; sleep 100; :"
    (task,) = submit(shell(cmd))
    fleet.scheduler()
    fleet.worker("w1")
    wait_until(lambda: len(pids_in(tmp_path / "pids")) == 2)

    queue.cancel([task.pk])
    wait_until(lambda: finished([task]), float(fleet.environment["DTS_KILL_GRACE_SECONDS"]) + 2)

    assert not any(alive(pid) for pid in pids_in(tmp_path / "pids"))
    assert Task.objects.get().status == "cancelled"
