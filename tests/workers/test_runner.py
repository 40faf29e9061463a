"""The runner by itself, with a guard and real commands."""

import uuid

import pytest
from django.utils import timezone

from jobs.specs import Claimed
from tests.helpers import wait_until
from tests.workers.guarded import guard_fixture  # noqa: F401  fixture
from workers.guard_wire import boottime
from workers.inline import InlineRunner
from workers.runner import Runner


def claimed(task_id: int, cmd: str, slots: int = 1) -> Claimed:
    return Claimed(task_id, 1, "", "shell", {"cmd": cmd}, 1, 1, None, timezone.now(), slots)


def function(task_id: int, slots: int = 1, seconds: float = 0.3) -> Claimed:
    payload = {"function": "time.sleep", "args": [seconds]}
    return Claimed(task_id, 1, "", "python", payload, 1, 1, None, timezone.now(), slots)


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


def test_what_runs_takes_no_more_slots_than_there_are_and_starts_in_order(runner, called, tmp_path):
    runner.slots = 3
    stamps = tmp_path / "stamps"

    def stamped(task_id: int, slots: int) -> Claimed:
        cmd = (
            f"echo + {task_id} {slots} >> {stamps}; sleep .1; echo - {task_id} {slots} >> {stamps}"
        )
        return claimed(task_id, cmd, slots)

    wide = [1, 2, 1, 3, 1, 1, 1, 2]
    runner.add([stamped(n, slots) for n, slots in enumerate(wide)])
    assert runner.room() == 3 - sum(wide)
    wait_until(lambda: called and called[-1] == len(wide))
    assert runner.room() >= 3

    busy, most, started = 0, 0, []
    for line in stamps.read_text().splitlines():
        sign, task_id, slots = line.split()
        busy += int(sign + slots)
        most = max(most, busy)
        if sign == "+":
            started.append(int(task_id))
    assert most == 3
    assert started.index(3) < started.index(4)  # nothing overtook the one that takes all


def test_functions_of_the_worker_itself_take_slots_too(guard, tmp_path):
    runner = InlineRunner(uuid.uuid4(), 2, lambda: guard, lambda: None)
    runner.renew(boottime() + 60)
    runner.start()
    note = tmp_path / "note"
    runner.add([claimed(1, f"sleep .3; echo 1 >> {note}"), function(2, slots=2, seconds=0.01)])
    runner.add([claimed(3, f"echo 3 >> {note}; head -c 300000 /dev/zero")])

    assert runner.work() == 0  # two slots are not free beside the first
    wait_until(lambda: len(runner.endings()) == 1)
    assert runner.busy_slots == 0
    assert runner.work() == 1
    wait_until(lambda: len(runner.endings()) == 3)  # the last one, whose pipe is read meanwhile
    assert [ending.task_id for ending in runner.endings()] == [1, 2, 3]
    assert note.read_text() == "1\n3\n"
