"""Real workers running real commands, and dying for real."""

import os
import signal
from pathlib import Path

import pytest
from django.db import connection, transaction

from jobs import logs, queue
from jobs.models import Attempt, Job, Lease, Task
from jobs.specs import TaskSpec
from tests.helpers import shell, submit, wait_until
from workers.models import State, Worker

pytestmark = pytest.mark.django_db(transaction=True)


def finished(tasks) -> bool:
    return not Task.objects.live().filter(pk__in=[task.pk for task in tasks]).exists()


def fresh(task: Task) -> Task:
    return Task.objects.get(pk=task.pk)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def pids_in(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def test_tasks_run_in_order_of_priority_and_end_as_they_should(fleet):
    low, high, fails, missing, function = tasks = submit(
        shell("echo low", priority=10),
        shell("echo HIGH; echo err >&2", priority=90),
        shell("exit 3", max_retries=2),
        shell("no-such-command"),
        TaskSpec(payload={"function": "math.hypot", "args": [3, 4]}, kind="python"),
    )
    fleet.scheduler()
    fleet.worker("w1", "--slots", "1")

    wait_until(lambda: finished(tasks))

    assert fresh(high).started_at < fresh(low).started_at
    assert (fresh(high).status, fresh(high).result_text) == ("done", "HIGH\n")
    assert (fresh(fails).status, fresh(fails).exit_code) == ("failed", 3)
    assert Attempt.objects.filter(task=fails).count() == 3
    assert fresh(missing).exit_code == 127
    assert "not found" in fresh(missing).result_text
    assert (fresh(function).status, fresh(function).result_text) == ("done", "5.0")
    assert logs.read(high.pk, 1, "stderr")[0] == b"err\n"
    wait_until(lambda: Job.objects.get().finished_at)


def test_hostile_commands_end_in_the_right_state_with_a_reason(fleet, tmp_path):
    python = "python3 -c"
    cases = {
        f'{python} "import sys; sys.stdout.buffer.write(bytes(range(256)) * 10)"': "done",
        # A gigabyte would only take longer: the cap is at one megabyte.
        "head -c 50000000 /dev/zero | tr '\\0' x": "done",
        f"setsid sleep 300 & echo $! >> {tmp_path}/daemon; exit 0": "done",
        "kill -9 $$": "failed",
        "trap '' TERM; while :; do sleep 0.1; done": "failed",
    }
    tasks = submit(*(shell(cmd, timeout_seconds=1 if "trap" in cmd else 60) for cmd in cases))
    fleet.scheduler()
    worker = fleet.worker("w1", "--slots", "5")

    wait_until(lambda: finished(tasks), 60)

    assert [fresh(task).status for task in tasks] == list(cases.values())
    binary, large, daemon, killed, stubborn = (fresh(task) for task in tasks)
    assert "\0" not in binary.result_text
    assert large.result_text.startswith("[... 49991808 bytes left out]")
    stored, end = logs.read(large.pk, 1, "stdout", limit=10**9)
    assert end == 50_000_000
    assert len(stored) < 2_000_000
    assert "bytes left out]" in stored.decode()
    assert not any(alive(pid) for pid in pids_in(tmp_path / "daemon"))
    assert daemon.exit_code == 0
    assert Attempt.objects.get(task=killed).error == "killed by SIGKILL"
    assert Attempt.objects.get(task=stubborn).outcome == "timed_out"
    assert worker.poll() is None


def test_secrets_of_the_worker_do_not_reach_its_tasks(fleet):
    tasks = submit(shell("env", timeout_seconds=30))
    fleet.scheduler()
    fleet.worker("w1")
    wait_until(lambda: finished(tasks))

    seen = fresh(tasks[0]).result_text
    assert "DATABASE_URL" not in seen
    assert f"DTS_TASK_ID={tasks[0].pk}" in seen


def test_a_task_whose_worker_is_killed_runs_again_elsewhere(fleet, tmp_path):
    tasks = submit(shell(f"echo $$ >> {tmp_path}/pids; sleep 1.5; echo ok"))
    fleet.scheduler()
    fleet.recovery()
    victim = fleet.worker("victim")
    wait_until(lambda: pids_in(tmp_path / "pids"))
    (first,) = pids_in(tmp_path / "pids")

    victim.kill()
    wait_until(lambda: not alive(first), 2)
    fleet.worker("second")
    wait_until(lambda: finished(tasks), 40)

    row = fresh(tasks[0])
    assert (row.status, row.result_text, row.attempt) == ("done", "ok\n", 2)
    outcomes = Attempt.objects.order_by("pk").values_list("outcome", "worker__name")
    assert list(outcomes) == [("lost", "victim"), ("done", "second")]
    assert Worker.objects.get(name="victim").state == State.LOST


def test_a_worker_restarted_under_its_name_gives_back_at_once_what_it_held(fleet, tmp_path):
    tasks = submit(shell(f"echo $$ >> {tmp_path}/pids; test $DTS_ATTEMPT = 2 || sleep 100"))
    fleet.scheduler()
    worker = fleet.worker("w1")  # and no recovery runs
    wait_until(lambda: pids_in(tmp_path / "pids"))

    worker.kill()
    wait_until(lambda: not alive(pids_in(tmp_path / "pids")[0]), 2)
    fleet.worker("w1")
    wait_until(lambda: finished(tasks))

    assert fresh(tasks[0]).status == "done"
    assert fresh(tasks[0]).loss_count == 1


def test_a_second_worker_of_the_same_name_is_refused(fleet, tmp_path):
    fleet.worker("w1")
    wait_until(lambda: Worker.objects.filter(name="w1"))

    same_machine = fleet.worker("w1")
    assert same_machine.wait(20) == 2
    elsewhere = fleet.start("run_worker", "--name", "w1", DTS_STATE_DIR=str(tmp_path / "other"))
    assert elsewhere.wait(20) == 2
    assert "another --name" in fleet.logs()


def test_a_stopped_workers_trees_are_dead_before_another_starts_the_task(fleet, tmp_path):
    tasks = submit(shell(f"echo $$ >> {tmp_path}/pids; test $DTS_ATTEMPT = 2 || sleep 100"))
    fleet.scheduler()
    fleet.recovery()
    frozen = fleet.worker("frozen")
    wait_until(lambda: pids_in(tmp_path / "pids"))
    (first,) = pids_in(tmp_path / "pids")

    os.kill(frozen.pid, signal.SIGSTOP)
    wait_until(lambda: not alive(first), 10)
    assert Lease.objects.filter(worker__name="frozen").exists()
    fleet.worker("second")
    wait_until(lambda: finished(tasks), 40)
    os.kill(frozen.pid, signal.SIGCONT)

    wait_until(lambda: "leases_lost" in fleet.logs() or "state=lease_lost" in fleet.logs())
    wait_until(lambda: Worker.objects.get(name="frozen").state == State.ONLINE)
    assert fresh(tasks[0]).status == "done"
    assert sorted(Attempt.objects.values_list("outcome", flat=True)) == ["done", "lost"]


def test_cancel_of_a_running_task_kills_its_whole_tree(fleet, tmp_path):
    cmd = f"sleep 100 & echo $! >> {tmp_path}/pids; echo $$ >> {tmp_path}/pids; wait"
    tasks = submit(shell(cmd))
    fleet.scheduler()
    fleet.worker("w1")
    wait_until(lambda: len(pids_in(tmp_path / "pids")) == 2)

    assert queue.cancel([tasks[0].pk]) == {tasks[0].pk: "in_progress"}
    wait_until(lambda: finished(tasks), 10)

    assert fresh(tasks[0]).status == "cancelled"
    assert not any(alive(pid) for pid in pids_in(tmp_path / "pids"))


def test_sigterm_lets_running_tasks_finish_and_then_leaves(fleet, tmp_path):
    running, waiting = submit(shell(f"echo 1 > {tmp_path}/pids; sleep 1", priority=9), "true")
    fleet.scheduler()
    worker = fleet.worker("w1", "--slots", "1")
    wait_until(lambda: pids_in(tmp_path / "pids"))

    worker.terminate()

    assert worker.wait(20) == 0
    assert fresh(running).status == "done"
    assert fresh(waiting).status in ("pending", "queued")
    assert Worker.objects.get().state == State.GONE


@pytest.mark.parametrize("signals", [1, 2])
def test_what_does_not_finish_while_draining_is_released_unharmed(fleet, tmp_path, signals):
    tasks = submit(shell(f"echo 1 > {tmp_path}/pids; sleep 100"))
    fleet.scheduler()
    drain_seconds = "0.5" if signals == 1 else "100"
    worker = fleet.worker("w1", "--drain-seconds", drain_seconds)
    wait_until(lambda: pids_in(tmp_path / "pids"))

    for _ in range(signals):
        worker.terminate()
        wait_until(lambda: "draining" in fleet.logs())

    assert worker.wait(20) == 0
    row = fresh(tasks[0])
    assert (row.status, row.retry_count, row.loss_count) == ("queued", 0, 0)
    assert Attempt.objects.get().outcome == "released"


def test_a_drain_asked_for_by_a_person_ends_the_worker(fleet):
    worker = fleet.worker("w1")
    wait_until(lambda: Worker.objects.filter(name="w1"))
    from workers import registry

    registry.drain(Worker.objects.all())

    assert worker.wait(20) == 0


def test_a_task_that_kills_the_guard_is_poison_and_the_worker_goes_on(fleet):
    poison, other = submit(shell("kill -9 $PPID; sleep 100"), shell("sleep 2; echo fine"))
    fleet.scheduler()
    worker = fleet.worker("w1", "--slots", "2")

    wait_until(lambda: finished([poison]), 30)

    assert fresh(poison).status == "failed"
    assert Attempt.objects.filter(task=poison, outcome="lost").count() == 3
    assert worker.poll() is None
    # The innocent one was lost with the guard each time; it may be poison by then, never stuck.
    wait_until(lambda: finished([other]), 30)


def test_a_policy_of_a_teams_own_settings_module_changes_the_order(fleet):
    from django.test import override_settings

    with override_settings(DTS={"POLICY": "tests.fifo_settings.OldestFirst"}):
        (low,) = submit(shell("true", priority=1))
        (high,) = submit(shell("true", priority=9))
    fleet.scheduler(DJANGO_SETTINGS_MODULE="tests.fifo_settings")
    fleet.worker("w1", "--slots", "1")
    wait_until(lambda: finished([low, high]))

    assert fresh(low).started_at < fresh(high).started_at


def test_what_is_in_hand_behind_long_tasks_goes_to_a_free_worker(fleet):
    """Short tasks make a worker take some in hand; long ones must not wait there."""
    short = submit(*["true"] * 100, name="short")
    fleet.scheduler()
    fleet.worker("busy", "--slots", "1")
    wait_until(lambda: Task.objects.filter(job=short[0].job).ended().count() > 30)
    long = submit(*["sleep 2"] * 3, name="long")
    fleet.worker("idle", "--slots", "3")

    wait_until(lambda: finished([*short, *long]), 30)

    last_end = max(fresh(task).completed_at for task in long)
    assert (last_end - long[0].created_at).total_seconds() < 5.9  # not one after another


def test_an_urgent_task_starts_on_the_next_free_slot(fleet):
    submit(*[shell("sleep 0.5", priority=1)] * 40)
    fleet.scheduler()
    fleet.worker("w1", "--slots", "2")
    wait_until(lambda: Task.objects.ended().count() >= 2)

    (urgent,) = submit(shell("true", priority=50))
    wait_until(lambda: finished([urgent]))

    before = Task.objects.filter(
        priority=1, started_at__gt=urgent.created_at, started_at__lt=fresh(urgent).started_at
    )
    assert before.count() <= 2  # slots that freed while it was being promoted


def test_two_schedulers_and_three_workers_record_each_task_once(fleet, tmp_path):
    tasks = submit(*[shell(f"echo $DTS_TASK_ID >> {tmp_path}/runs")] * 300)
    for _ in range(2):
        fleet.scheduler()
    for name in ("a", "b", "c"):
        fleet.worker(name, "--slots", "4")

    wait_until(lambda: finished(tasks), 60)

    runs = pids_in(tmp_path / "runs")
    assert sorted(runs) == sorted(task.pk for task in tasks)
    assert Attempt.objects.count() == 300
    assert set(Task.objects.values_list("status", flat=True)) == {"done"}


@pytest.fixture
def impatient_role(transactional_db):
    """Processes of the test wait a tenth of a second for a lock, then get an error."""
    with connection.cursor() as cursor:
        cursor.execute("ALTER ROLE CURRENT_USER SET lock_timeout = '100ms'")
    yield
    with connection.cursor() as cursor:
        cursor.execute("ALTER ROLE CURRENT_USER RESET lock_timeout")


def test_output_survives_a_database_that_refuses_it_for_a_while(impatient_role, fleet):
    (task,) = submit(shell("echo early; sleep 2; echo late"))
    fleet.scheduler()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("LOCK TABLE log_chunks IN ACCESS EXCLUSIVE MODE")
        fleet.worker("w1")
        wait_until(lambda: "no_answer" in fleet.logs())
    wait_until(lambda: finished([task]))

    assert logs.read(task.pk, 1, "stdout")[0] == b"early\nlate\n"
