"""The guard as its agent knows it: how tasks start, how they end, what is told of it."""

import os
import resource
import signal
import sys
from pathlib import Path

import pytest

from tests.workers.guarded import (  # noqa: F401  fixtures
    ENV,
    daemon_fixture,
    events,
    guard_fixture,
    living,
    output,
    run,
    sleepers,
    spawn,
    tag_fixture,
    wait_until,
)
from workers.guard_proc import processes
from workers.processes import Guard, boottime


@pytest.mark.parametrize(
    ("command", "exit_code", "by_signal"),
    [
        ("exit 0", 0, None),
        ("exit 3", 3, None),
        ("no-such-x", 127, None),
        ("kill -SEGV $$", None, 11),
    ],
)
def test_reports_how_a_task_ended(guard, command, exit_code, by_signal):
    ended = run(guard, command)
    assert (ended.exit_code, ended.signal) == (exit_code, by_signal)
    assert (ended.key, ended.reason, ended.error, ended.escaped) == (1, None, None, 0)
    assert 0 <= ended.duration_seconds < 10


def test_the_descriptors_are_the_tasks_own(guard):
    pipes = [os.pipe() for _ in range(4)]
    theirs = [pipes[0][0], pipes[1][1], pipes[2][1], pipes[3][1]]
    spawn(guard, "cat; echo oops >&2; echo 42 > /proc/self/fd/$DTS_RESULT_FD", fds=theirs)
    os.write(pipes[0][1], b"hello")
    for fd in (pipes[0][1], *theirs):
        os.close(fd)
    assert events(guard)[0].exit_code == 0
    assert [os.read(reader, 99) for reader, _ in pipes[1:]] == [b"hello", b"oops\n", b"42\n"]
    for reader, _ in pipes[1:]:
        os.close(reader)


def ignored(mask):
    """The ignored signals, but for two that the C library keeps for itself: no process can reset
    them, and make(1) starts its commands with them ignored."""
    return {n for n in range(1, 65) if int(mask, 16) >> (n - 1) & 1} - {32, 33}


@pytest.mark.parametrize("shell", ["/bin/sh", "sh"])  # by posix_spawn, by fork
def test_a_task_starts_clean(guard, shell):
    """No signal ignored or blocked, nothing of the guard's open, the environment as told."""
    looks = "grep -E 'Sig(Blk|Ign)' /proc/self/status; ls /proc/self/fd; env"
    text = output(guard, [shell, "-c", looks])
    lines = text.split()
    assert lines[:3] == ["SigBlk:", "0" * 16, "SigIgn:"]
    assert not ignored(lines[3])
    assert lines[4:8] == ["0", "1", "2", "3"]
    names = {line.partition("=")[0] for line in lines[8:]}
    assert names - {"_", "SHLVL"} == {"PATH", "PWD", "DTS_TREE"}


def test_umask_niceness_and_limits(guard):
    command = "umask; nice; ulimit -n; grep SigIgn /proc/self/status; env"
    lines = output(guard, command, umask=0o027, nice=5, rlimits={"nofile": 99}).split()
    assert lines[:4] == ["0027", "5", "99", "SigIgn:"]
    assert not ignored(lines[4])
    assert not [line for line in lines if line.startswith("LC_")]


@pytest.mark.parametrize(
    ("argv", "options", "named"),
    [
        (["true"], {"cwd": "/no/such"}, "[Errno 2] No such file or directory: '/no/such'"),
        (["no-such-x"], {}, "[Errno 2] No such file or directory: 'no-such-x'"),
        (["/etc/passwd"], {}, "[Errno 13] Permission denied: '/etc/passwd'"),
        (["a\0b"], {}, "execve: embedded null character in path"),
        (["true", "x" * 200_000], {}, "[Errno 7] Argument list too long: 'true'"),
        ([], {}, "list index out of range"),
    ],
)
def test_says_why_a_task_cannot_start(guard, argv, options, named):
    ended = run(guard, argv, **options)
    assert (ended.reason, ended.error) == ("not_started", f"cannot start: {named}")
    assert run(guard, "exit 0", key=2).exit_code == 0


def test_out_of_descriptors_is_a_task_not_started(guard):
    run(guard, "exit 0")
    _, hard = resource.prlimit(guard.pid, resource.RLIMIT_NOFILE)
    in_use = {int(fd) for fd in os.listdir(f"/proc/{guard.pid}/fd")}
    free = [fd for fd in range(50) if fd not in in_use]
    for room in (0, 1, 2, 3, 4):  # none of the three, some, all but none for the spawn itself
        limit = (free[room], hard)
        resource.prlimit(guard.pid, resource.RLIMIT_NOFILE, limit)
        ended = run(guard, ["true"], key=2)
        assert ended.reason == "not_started"
        assert "too many open files" in ended.error.lower()
    resource.prlimit(guard.pid, resource.RLIMIT_NOFILE, (hard, hard))
    assert run(guard, "exit 0", key=3).exit_code == 0


def test_measures_cpu_time_and_peak_memory(guard):
    burn = "x = bytearray(60 << 20)\nimport time\nwhile time.process_time() < 0.2: pass"
    ended = run(guard, [sys.executable, "-S", "-c", burn])
    assert ended.cpu_seconds >= 0.2
    assert 60 << 20 < ended.peak_memory_bytes < 120 << 20
    assert run(guard, "exit 0", key=2).peak_memory_bytes is None


def test_a_frame_of_two_megabytes(guard):
    """Longer than a socket's buffer, and the descriptors still belong to it."""
    env = {**ENV, **{f"BIG{i}": "\n" * 100_000 for i in range(9)}}
    text = output(guard, ["sh", "-c", "echo ${#BIG8} ${#1}", "sh", "x" * 100_000], env=env)
    assert text == "100000 100000\n"


def test_many_quick_tasks_leave_nothing_behind(guard):
    run(guard, "exit 0", key=1000)
    files = os.listdir(f"/proc/{guard.pid}/fd")
    for key in range(200):
        spawn(guard, ["true"], key=key)
    assert sorted(ended.key for ended in events(guard, 200)) == list(range(200))
    assert os.listdir(f"/proc/{guard.pid}/fd") == files
    assert not [it for it in processes() if it.parent == guard.pid]
    assert guard.read_events() == []


def memory_kb(pid):
    """The process's own memory and its share of what it has in common with others."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(rollup.split("Pss:")[1].split()[0])


def test_guard_and_warden_are_small(guard, record_property):
    for key in range(20):
        spawn(guard, "exit 0", key=key, nice=1 if key == 7 else None)
    events(guard, 20)
    kilobytes = memory_kb(guard.pid) + memory_kb(guard.process.pid)
    record_property("guard_and_warden_pss_kb", kilobytes)
    assert kilobytes < 15 * 1024


# What ends a task


def test_timeout_kills_a_tree_that_ignores_term(guard, tag):
    command = f'trap "" TERM; sleep {tag} & (trap "" TERM; sleep {tag}; :) & wait; wait'
    spawn(guard, command, timeout_seconds=0.3, grace_seconds=0.2)
    wait_until(lambda: len(sleepers(tag)) == 2, seconds=5)
    ended = events(guard)[0]
    assert (ended.reason, ended.signal) == ("timed_out", signal.SIGKILL)
    assert ended.duration_seconds >= 0.5
    assert living(tag) == []


def test_cancel_gives_the_leader_its_grace(guard, tag):
    spawn(guard, f'trap "exit 7" TERM; sleep {tag} & wait', grace_seconds=60)
    wait_until(lambda: sleepers(tag))
    guard.kill(1, "cancelled")
    ended = events(guard)[0]
    assert (ended.reason, ended.exit_code, ended.escaped) == ("cancelled", 7, 0)
    assert living(tag) == []


def test_a_second_kill_skips_the_grace_and_the_first_reason_stands(guard, tag):
    spawn(guard, f'trap "" TERM; sleep {tag}; :', grace_seconds=60)
    wait_until(lambda: sleepers(tag))
    guard.kill(1, "cancelled")
    guard.kill(1, "released", now=True)
    ended = events(guard)[0]
    assert (ended.reason, ended.signal, ended.escaped) == ("cancelled", signal.SIGKILL, 0)
    assert living(tag) == []
    guard.kill(1, "cancelled")  # too late is no error
    assert run(guard, "exit 0", key=2).exit_code == 0


def test_a_program_has_its_grace_though_its_shell_died_at_once(guard, tag, tmp_path):
    """Of `sh -c "a; b"` the shell is the leader, and dies of TERM while `a` still cleans up."""
    script = tmp_path / "program.py"
    script.write_text(
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit())\n"
        f"print({tag}, flush=True)\n"
        "try: time.sleep(60)\n"
        "finally:\n"
        "    time.sleep(0.3)\n"
        "    open('clean', 'w')\n"
    )
    ready = tmp_path / "ready"
    spawn(
        guard,
        f"{sys.executable} {script} > {ready}; exit 3",
        cwd=str(tmp_path),
        grace_seconds=10,
    )
    wait_until(lambda: ready.exists() and ready.read_text())
    guard.kill(1, "cancelled")
    assert events(guard)[0].signal == signal.SIGTERM
    assert (tmp_path / "clean").exists()


@pytest.mark.parametrize(
    ("grace_seconds", "by_signal"), [(60, signal.SIGTERM), (0, signal.SIGKILL)]
)
def test_a_stopped_task_dies_too(guard, tag, grace_seconds, by_signal):
    trap = "" if by_signal == signal.SIGTERM else 'trap "" TERM;'
    spawn(guard, f"{trap} kill -STOP $$; sleep {tag}", grace_seconds=grace_seconds)
    wait_until(lambda: [it for it in processes() if it.pid in living(tag) and it.state == "T"])
    guard.kill(1, "cancelled")
    assert events(guard)[0].signal == by_signal


def test_without_a_lease_nothing_starts(tmp_path):
    with Guard(tmp_path / "guard.lock") as guard:
        ended = run(guard, "exit 0")
        assert (ended.reason, ended.pid) == ("lease_lost", None)
        guard.renew(boottime() + 60)
        assert run(guard, "exit 0", key=2).exit_code == 0
        guard.renew(boottime() - 1)
        ended = run(guard, "exit 0", key=3)
        assert (ended.reason, ended.pid) == ("lease_lost", None)


def test_the_end_of_the_lease_kills_everything_unasked(guard, tag, daemon):
    for key in (1, 2):
        spawn(guard, f'trap "" TERM; {daemon}; sleep {tag}; :', key=key, grace_seconds=0.2)
    wait_until(lambda: len(sleepers(tag)) == 4)
    guard.renew(boottime() + 0.3)
    assert {ended.reason for ended in events(guard, 2)} == {"lease_lost"}
    assert living(tag) == []


def test_a_renewed_lease_goes_on(guard):
    spawn(guard, "sleep 1; exit 5", grace_seconds=0)
    guard.renew(boottime() + 0.5)
    guard.renew(boottime() + 60)
    assert events(guard)[0].exit_code == 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_guard_outlives_what_ends_its_worker(guard, number):
    run(guard, "exit 0")
    os.kill(guard.pid, number)
    assert run(guard, "exit 4", key=2).exit_code == 4
