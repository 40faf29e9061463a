"""Workers that know a URL and a token, and no database: real ones, through a real gunicorn."""

import os
import signal
import time

import psutil
import pytest
from django.db import connection
from django.utils import timezone

from jobs import queue
from jobs.models import Attempt, Task, Token
from jobs.specs import TaskSpec
from tests.helpers import shell, submit, wait_until
from tests.processes.test_workers import alive, finished, pids_in
from workers.models import State, Worker

pytestmark = pytest.mark.django_db(transaction=True)

# By hand: DTS_TEST_FAR_TASKS=1000 pytest tests/processes/test_far_workers.py
TASKS = int(os.environ.get("DTS_TEST_FAR_TASKS", "60"))


@pytest.fixture
def token() -> str:
    return Token.issue("far", ["work"])[1]


def connections_of_workers() -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dts worker'"
        )
        return cursor.fetchone()[0]


def test_a_worker_needs_a_url_and_a_token_and_no_database(fleet, token):
    fleet.api()
    fleet.scheduler()
    parent = fleet.far_worker("far", token, "--processes", "2", "--capabilities", "gpu")
    names = Worker.objects.order_by("name").values_list("name", flat=True)
    wait_until(lambda: list(names.all()) == ["far-1", "far-2"])
    tasks = submit(
        shell("echo out; echo err >&2; test -z $DTS_TOKEN && env | grep -c ^DATABASE_URL"),
        shell("exit 3", requires=["gpu"]),
        TaskSpec(payload={"function": "math.factorial", "args": [5]}, kind="python"),
    )
    wait_until(lambda: finished(tasks))

    assert [task.status for task in Task.objects.order_by("pk")] == ["failed", "failed", "done"]
    first, second, third = Attempt.objects.order_by("task_id")
    assert (first.exit_code, second.exit_code, third.outcome) == (1, 3, "done")
    assert first.output.split() == ["out", "0", "err"]
    assert Task.objects.get(pk=tasks[2].pk).result_text == "120"
    assert connections_of_workers() == 0
    family = psutil.Process(parent.pid).children(recursive=True)
    assert not any("postgres" in process.name() for process in family)
    assert not any("postgres" in path.name for path in (fleet.folder / "far").rglob("*"))

    (slow,) = submit("sleep 1000")
    wait_until(lambda: Task.objects.get(pk=slow.pk).status == "in_progress")
    queue.cancel([slow.pk])
    wait_until(lambda: finished([slow]), 5)
    assert Task.objects.get(pk=slow.pk).status == "cancelled"

    parent.terminate()
    assert parent.wait(20) == 0
    assert set(Worker.objects.values_list("state", flat=True)) == {State.GONE}


def test_one_cut_off_keeps_its_servers_lease_and_its_next_boot_delivers_what_ended(
    fleet, token, tmp_path
):
    """The server told it of a lease of 4 s; without that it would let its task run for 22 s."""
    api = fleet.api()
    fleet.scheduler()
    worker = fleet.far_worker("far", token, "--slots", "2")
    ends, _ = submit("sleep 1; echo kept", shell(f"echo $$ > {tmp_path}/pid; exec sleep 1000"))
    wait_until(lambda: pids_in(tmp_path / "pid"))
    (pid,) = pids_in(tmp_path / "pid")
    os.killpg(api.pid, signal.SIGKILL)

    wait_until(lambda: not alive(pid), 6)
    spool = fleet.folder / "far" / "workers" / "far.spool"
    wait_until(lambda: spool.exists() and spool.stat().st_size)
    worker.kill()
    worker.wait()
    fleet.api()
    fleet.far_worker("far", token)

    wait_until(lambda: finished([ends]))
    assert Task.objects.get(pk=ends.pk).result_text == "kept\n"
    assert Attempt.objects.filter(task=ends).count() == 1
    assert not spool.exists()


def test_a_token_may_be_exchanged_while_a_worker_runs_and_revoked_it_ends_it(fleet, token):
    fleet.api()
    worker = fleet.far_worker("far", token)
    wait_until(lambda: Worker.objects.exists())
    (fleet.folder / "far.token").write_text(Token.issue("new", ["work"])[1])
    Token.objects.filter(name="far").update(revoked_at=timezone.now())
    time.sleep(1.5)
    assert worker.poll() is None
    Token.objects.update(revoked_at=timezone.now())
    assert worker.wait(20) == 2
    log = fleet.folder / f"{len(fleet.processes) - 1}-run_worker.log"
    assert "The token is unknown, expired or revoked." in log.read_text().splitlines()[-1]

    again = fleet.far_worker("far", token)
    assert again.wait(20) == 2
    (line,) = (fleet.folder / f"{len(fleet.processes) - 1}-run_worker.log").read_text().splitlines()
    assert "The token is unknown, expired or revoked." in line


def test_the_api_killed_twice_costs_no_task_and_doubles_none(fleet, token):
    """Three workers, and each task recorded once: the count of its endings, and of its runs."""
    lease = {"DTS_LEASE_SECONDS": "8"}  # in which it can be started again
    api = fleet.api(**lease)
    fleet.scheduler()
    workers = [fleet.far_worker(f"far{n}", token, "--slots", "4") for n in range(3)]
    wait_until(lambda: Worker.objects.filter(state=State.ONLINE).count() == 3)
    runs = fleet.folder / "runs"
    runs.mkdir()
    tasks = submit(*[shell(f"sleep 0.2; echo $DTS_TASK_ID > $(mktemp {runs}/XXXXXXXXXX)")] * TASKS)
    for part in (1 / 3, 2 / 3):
        wait_until(lambda part=part: ended_so_far() >= part * TASKS, 120)
        os.killpg(api.pid, signal.SIGKILL)
        api.wait()
        time.sleep(0.3)
        assert ended_so_far() < TASKS
        api = fleet.api(**lease)
    wait_until(lambda: finished(tasks), 120)

    assert all(worker.poll() is None for worker in workers)
    assert set(Task.objects.values_list("status", flat=True)) == {"done"}
    assert Attempt.objects.filter(outcome="done").count() == TASKS
    assert not Attempt.objects.exclude(outcome__in=["done", "released"]).exists()
    ran = [path.read_text().split()[0] for path in runs.iterdir()]
    assert sorted(map(int, ran)) == sorted(task.pk for task in tasks)


def ended_so_far() -> int:
    return Task.objects.exclude(final_status=None).count()
