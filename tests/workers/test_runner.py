"""The runner by itself, with a guard and real commands."""

import uuid

import pytest
from django.utils import timezone

from jobs.specs import Claimed
from tests.helpers import wait_until
from tests.workers.guarded import guard_fixture  # noqa: F401  fixture
from workers.guard_wire import boottime
from workers.runner import Runner


def claimed(task_id: int, cmd: str) -> Claimed:
    return Claimed(task_id, 1, "", "shell", {"cmd": cmd}, 1, 1, None, timezone.now())


@pytest.fixture
def called():
    return []


@pytest.fixture
def runner(guard, called):
    made = Runner(uuid.uuid4(), 1, lambda: guard, lambda: called.append(len(made.endings())))
    made.renew(boottime() + 60)
    made.start()
    return made


def test_endings_are_gathered_while_enough_is_in_hand(runner, called):
    runner.add([claimed(number, "exit 3") for number in range(100)])
    wait_until(lambda: called and called[-1] == 100)
    assert {ending.exit_code for ending in runner.endings()} == {3}
    assert len(called) < 60  # one for each, were they not gathered


def test_what_ends_soon_and_what_runs_on_is_captured_alike(runner, called):
    big = "head -c 300000 /dev/zero | tr '\\0' x"  # more than a pipe holds
    runner.add([claimed(1, "echo soon"), claimed(2, big), claimed(3, "echo a; sleep .3; echo b")])
    wait_until(lambda: called and called[-1] == 3)
    soon, much, long = runner.endings()
    assert soon.output == "soon\n"
    assert much.output.endswith("xxx")
    assert long.output == "a\nb\n"
