"""Idle workers of the API wait at it for work: real ones, at a real gunicorn."""

import os
import signal
import time

import pytest

from jobs.models import Task, Token
from tests.helpers import submit, wait_until
from tests.processes.test_workers import finished
from workers.models import State, Worker

pytestmark = pytest.mark.django_db(transaction=True)
# As they are outside of tests: an idle worker asks some twelve seconds later again.
LONG = {
    "DTS_LEASE_SECONDS": "30",
    "DTS_HEARTBEAT_SECONDS": "5",
    "DTS_KILL_GRACE_SECONDS": "5",
}


@pytest.fixture
def token() -> str:
    return Token.issue("far", ["work"])[1]


def asked(fleet) -> int:
    """How often workers asked the API for anything."""
    return fleet.logs().count('"POST /api/v1/workers/')


def waits(fleet) -> int:
    """How many heartbeats had their answers put off: the access log has nothing sent."""
    return fleet.logs().count('/heartbeat HTTP/1.1" 200 0 bytes')


def seconds_to_start(task: Task) -> float:
    wait_until(lambda: finished([task]))
    task.refresh_from_db()
    return (task.started_at - task.created_at).total_seconds()


def test_an_idle_worker_asks_for_nothing_and_starts_at_once_what_comes(fleet, token):
    fleet.api(**LONG)
    fleet.scheduler(**LONG)
    worker = fleet.far_worker("far", token)
    wait_until(lambda: waits(fleet))
    time.sleep(0.5)
    before = asked(fleet)
    time.sleep(4)
    assert asked(fleet) == before

    for _ in range(2):
        (task,) = submit("true")
        assert seconds_to_start(task) < 0.8  # it used to ask each second
        before = waits(fleet)
        wait_until(lambda before=before: waits(fleet) > before)

    began_at = time.monotonic()
    worker.terminate()
    assert worker.wait(20) == 0
    assert time.monotonic() - began_at < 5
    assert Worker.objects.get().state == State.GONE


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_api_ends_while_workers_wait_and_they_wait_at_the_next(fleet, token, number):
    """SIGTERM is not held up by them; a killed one leaves them to find that out."""
    api = fleet.api(**LONG)
    fleet.scheduler(**LONG)
    worker = fleet.far_worker("far", token)
    wait_until(lambda: waits(fleet) == 1)
    time.sleep(0.5)
    began_at = time.monotonic()
    if number == signal.SIGTERM:
        api.terminate()
    else:
        os.killpg(api.pid, number)
    api.wait(20)
    assert time.monotonic() - began_at < 6  # graceful_timeout is 30
    before = waits(fleet)
    fleet.api(**LONG)
    wait_until(lambda: waits(fleet) > before, 15)

    (task,) = submit("true")
    assert seconds_to_start(task) < 0.8
    assert worker.poll() is None


def test_a_frozen_worker_that_waits_is_lost_as_any_other(fleet, token):
    """Its connection lives on, but nothing is renewed in its name."""
    fleet.api()
    fleet.recovery()
    worker = fleet.far_worker("far", token)
    wait_until(lambda: waits(fleet))
    time.sleep(5)  # longer than its lease
    assert Worker.objects.get().state == State.ONLINE
    os.killpg(worker.pid, signal.SIGSTOP)
    wait_until(lambda: Worker.objects.get().state == State.LOST, 10)
    os.killpg(worker.pid, signal.SIGCONT)
    wait_until(lambda: Worker.objects.get().state == State.ONLINE, 10)
