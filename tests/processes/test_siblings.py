"""`run_worker --processes`: several workers under one command, and their deaths."""

import os
import signal
import time
from pathlib import Path

import pytest

from jobs.models import Task
from tests.helpers import submit, wait_until
from tests.processes.test_workers import alive, finished
from workers.models import State, Worker

pytestmark = pytest.mark.django_db(transaction=True)


def online() -> dict[str, int]:
    return dict(Worker.objects.filter(state=State.ONLINE).values_list("name", "pid"))


def running() -> int:
    return Task.objects.filter(status="in_progress").count()


def test_each_process_is_a_worker_with_its_own_slots(fleet):
    submit(*["sleep 300"] * 5)
    fleet.scheduler()
    parent = fleet.worker("w", "--processes", "2", "--slots", "2", "--capabilities", "eu,gpu")
    wait_until(lambda: running() == 4)

    assert online().keys() == {"w-1", "w-2"}
    assert [worker.capabilities for worker in Worker.objects.all()] == [["eu", "gpu"]] * 2
    parent.send_signal(signal.SIGTERM)
    wait_until(lambda: not online())
    assert (running(), parent.poll()) == (4, None)
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(20) == 0, fleet.logs()
    assert not Task.objects.exclude(status__in=["pending", "queued"]).exists()


def test_one_that_dies_is_started_again(fleet):
    fleet.scheduler()
    fleet.worker("w", "--processes", "2", "--slots", "1")
    wait_until(lambda: len(online()) == 2)
    before = online()

    os.kill(before["w-1"], signal.SIGKILL)

    wait_until(lambda: online().get("w-1") not in (None, before["w-1"]))
    assert online()["w-2"] == before["w-2"]
    tasks = submit(*["true"] * 20)
    wait_until(lambda: finished(tasks))


def test_one_that_is_refused_ends_all(fleet):
    fleet.worker("w-2")
    wait_until(lambda: online())
    parent = fleet.worker("w", "--processes", "2")

    assert parent.wait(20) == 2
    assert "choose another --name" in fleet.logs()
    assert online().keys() == {"w-2"}


def test_none_outlives_a_killed_parent(fleet):
    parent = fleet.worker("w", "--processes", "2")
    wait_until(lambda: len(online()) == 2)
    pids = list(online().values())

    parent.kill()

    wait_until(lambda: not any(alive(pid) for pid in pids))


def test_one_that_hangs_is_seen_by_the_probe(fleet, tmp_path):
    """It looks at one file, by its age."""
    shared = tmp_path / "alive"
    fleet.environment["DTS_LIVENESS_FILE"] = str(shared)
    fleet.worker("w", "--processes", "2")
    wait_until(lambda: len(online()) == 2)
    hung = online()["w-1"]

    os.kill(hung, signal.SIGSTOP)
    age(tmp_path / "alive.w-1")
    wait_until(lambda: not touched(shared, seconds=3))
    os.kill(hung, signal.SIGCONT)

    wait_until(lambda: touched(shared, seconds=3))


def age(file: Path) -> None:
    an_hour_ago = time.time() - 3600
    os.utime(file, (an_hour_ago, an_hour_ago))


def touched(file: Path, *, seconds: float) -> bool:
    """Whether it is within so many seconds."""
    age(file)
    time.sleep(seconds)
    return time.time() - file.stat().st_mtime < 60


@pytest.mark.parametrize("number", ["0", "101", "two"])
def test_a_wrong_number_is_refused_in_a_line(fleet, number):
    refused = fleet.worker("w", "--processes", number)

    assert refused.wait(20) == 2
    assert f"give a number from 1 to 100, not '{number}'" in fleet.logs()
