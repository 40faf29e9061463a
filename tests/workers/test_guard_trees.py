"""What escapes from a task, and what happens when agent or guard is killed."""

import os
import select
import signal
import sys
import time

import pytest

from tests.workers.guarded import (  # noqa: F401  fixtures
    daemon_fixture,
    events,
    guard_fixture,
    is_gone,
    living,
    run,
    sleepers,
    spawn,
    start_agent_fixture,
    tag_fixture,
    wait_until,
)
from workers.guard_proc import processes
from workers.processes import Guard, GuardDied, GuardRunning, boottime, kill_survivors, lock_is_free

# Each process lives for a moment, in a session of its own, and leaves a child behind. The last
# ends by itself: no search by a test would catch up with it.
COMET = """
import os, sys, time
until = time.monotonic() + 60
while time.monotonic() < until:
    if os.fork(): os._exit(0)
    os.setsid()
"""


# Whatever escapes


@pytest.mark.parametrize(
    "escape", ["sleep {0} &", "setsid sleep {0} &", "env -i setsid sleep {0} &", "{1}"]
)
def test_a_task_ends_with_its_tree(guard, tag, daemon, escape):
    spawn(guard, f"{escape.format(tag, daemon)} exit 0" if "&" in escape else daemon)
    ended = events(guard)[0]
    assert (ended.exit_code, ended.reason) == (0, None)
    assert ended.escaped >= 1
    assert living(tag) == []


def test_cancel_reaches_what_left_the_session(guard, tag, daemon):
    spawn(guard, f"setsid sleep {tag} & {daemon}; sleep {tag}; :", grace_seconds=0)
    wait_until(lambda: len(sleepers(tag)) == 3)
    guard.kill(1, "cancelled")
    assert events(guard)[0].escaped == 2
    assert living(tag) == []


def test_a_process_that_keeps_forking_away_is_caught(guard, tag, tmp_path):
    script = tmp_path / "comet.py"
    script.write_text(COMET)
    spawn(
        guard,
        f"{sys.executable} -S {script} {tag} & {sys.executable} -S {script} {tag} & sleep 0.2",
    )
    events(guard, seconds=30)
    assert living(tag) == []


def test_the_background_of_a_running_task_is_left_alone(guard, tag):
    """Neither in its session nor out of it, nor what was there before the task that ended."""
    background = f"(sleep {tag} &); (setsid sleep {tag} &); (env -i setsid sleep {tag} &)"
    spawn(guard, f"{background}; sleep {tag}; :", key=1, grace_seconds=0)
    before = wait_until(lambda: len(sleepers(tag)) == 4 and sleepers(tag))
    seen_at = boottime()
    wait_until(lambda: boottime() > seen_at + 0.02)  # /proc tells ages to 0.01 s
    assert all(run(guard, "sleep 600 & exit 0", key=key).escaped == 1 for key in (2, 3, 4))
    assert sleepers(tag) == before
    guard.kill(1, "released")
    assert events(guard)[0].reason == "released"
    assert living(tag) == []


@pytest.mark.parametrize("background", ["env -i sleep {0}", "setsid sleep {0}"])
def test_a_younger_background_is_told_by_its_session_or_its_mark(guard, tag, background):
    reader, writer = os.pipe()
    with open(os.devnull, "wb") as null:
        spawn(guard, "read line", key=1, fds=[reader, null.fileno(), null.fileno()])
    os.close(reader)
    spawn(guard, f"({background.format(tag)} &); sleep {tag}; :", key=2, grace_seconds=0)
    before = wait_until(lambda: len(sleepers(tag)) == 2 and sleepers(tag))
    os.close(writer)
    ended = events(guard)[0]
    assert (ended.key, ended.escaped) == (1, 0)
    assert sleepers(tag) == before


# Deaths


def test_closing_ends_everything(guard, tag, daemon):
    spawn(guard, f'trap "" TERM; setsid sleep {tag} & {daemon}; sleep {tag}; :', grace_seconds=60)
    wait_until(lambda: len(sleepers(tag)) == 3)
    assert not lock_is_free(guard.lock_path)
    assert guard.close()
    assert living(tag) == []
    assert lock_is_free(guard.lock_path)


def kill_at_once(*pids):
    """So that none of them sees another die: a signal is pending before any can run."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    "victims",
    ["agent", "guard", "warden", "warden agent", "agent guard", "warden guard"],
)
def test_a_death_or_two_at_once_end_everything(start_agent, tag, daemon, tmp_path, victims):
    """Daemons that nothing marks and an own session included."""
    command = f'trap "" TERM; setsid sleep {tag} & {daemon}; sleep {tag}; :'
    agent, guard, warden = start_agent(command)
    wait_until(lambda: len(sleepers(tag)) == 3)
    pids = {"agent": agent.pid, "guard": guard, "warden": warden}
    kill_at_once(*(pids[victim] for victim in victims.split()))
    wait_until(lambda: sleepers(tag) == [], seconds=2)
    wait_until(lambda: is_gone(guard) and is_gone(warden), seconds=2)
    assert lock_is_free(tmp_path / "agent.lock")
    if "agent" not in victims:
        assert agent.stdout.readline() == b"reaped\n"
        assert not [it for it in processes() if it.parent == agent.pid]


def test_the_agents_death_is_seen_though_its_fork_holds_the_socket(start_agent, tag):
    agent, _, warden = start_agent(f"sleep {tag}", "fork")
    wait_until(lambda: sleepers(tag))
    agent.kill()
    wait_until(lambda: is_gone(warden), seconds=5)
    assert sleepers(tag) == []


def test_a_forking_tree_is_caught_by_the_warden_too(start_agent, tag, tmp_path):
    script = tmp_path / "comet.py"
    script.write_text(COMET)
    agent, guard, warden = start_agent(f"{sys.executable} -S {script} {tag} & sleep {tag}")
    wait_until(lambda: sleepers(tag))
    kill_at_once(agent.pid, guard)
    wait_until(lambda: is_gone(warden), seconds=30)
    assert living(tag) == []


def test_a_stopped_guard_is_made_to_go_on(guard):
    run(guard, "exit 0")
    os.kill(guard.pid, signal.SIGSTOP)
    assert run(guard, "exit 5", key=2).exit_code == 5


@pytest.mark.parametrize("asked", ["lease", "spawn"])
def test_a_guard_that_does_not_answer_or_read_is_killed(tmp_path, tag, daemon, asked):
    def ask():
        if asked == "lease":
            guard.renew(boottime() + 60)
        else:
            spawn(guard, ["true", "x" * 100_000])
        time.sleep(0.1)
        guard.read_events()

    with Guard(tmp_path / "guard.lock", patience_seconds=0.5) as guard:
        guard.renew(boottime() + 60)
        spawn(guard, f"{daemon}; sleep {tag}; :")
        wait_until(lambda: len(sleepers(tag)) == 2)
        for pid in (guard.process.pid, guard.pid):  # else the one has the other go on
            os.kill(pid, signal.SIGSTOP)
        with pytest.raises(GuardDied):
            wait_until(ask)
        guard.reap_orphans()
        assert living(tag) == []
        assert lock_is_free(guard.lock_path)


def test_an_agent_that_was_stopped_does_not_take_its_guard_for_sick(tmp_path):
    with Guard(tmp_path / "guard.lock", patience_seconds=0.1) as guard:
        for _ in range(4):
            guard.renew(boottime() + 60)
            wait_until(lambda: select.select([guard], [], [], 0)[0])
            time.sleep(0.2)  # as if stopped, the answer unread
            guard.renew(boottime() + 60)
            guard.read_events()
        assert run(guard, "exit 0").exit_code == 0


def test_the_guards_death_is_told_to_the_agent(guard, tag):
    spawn(guard, f"sleep {tag}")
    wait_until(lambda: sleepers(tag))
    os.kill(guard.pid, signal.SIGKILL)
    with pytest.raises(GuardDied):
        events(guard)
    with pytest.raises(GuardDied):
        guard.renew(boottime() + 60)
    guard.reap_orphans()
    assert living(tag) == []
    assert lock_is_free(guard.lock_path)


@pytest.mark.parametrize("command", ["(setsid sleep {0} &); sleep {0}; :", "exec env -i sleep {0}"])
def test_survivors_of_agent_guard_and_warden_are_killed(start_agent, tag, tmp_path, command):
    lock = tmp_path / "agent.lock"
    agent, guard, warden = start_agent(command.format(tag))
    pids = wait_until(lambda: len(sleepers(tag)) == command.count("sleep") and sleepers(tag))
    kill_at_once(warden, agent.pid, guard)
    wait_until(lambda: is_gone(guard) and is_gone(agent.pid) and lock_is_free(lock))
    assert sleepers(tag) == pids
    assert kill_survivors("boot of somebody else", tmp_path / "other.lock") == 0
    assert kill_survivors("boot", lock) >= len(pids)
    assert living(tag) == []


def test_one_guard_a_lock(guard):
    with pytest.raises(GuardRunning, match=r"guard\.lock is locked"):
        Guard(guard.lock_path)
    assert lock_is_free(guard.lock_path.with_name("never-taken.lock"))
