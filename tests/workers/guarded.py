"""Real guards and real tasks for tests."""

import contextlib
import ctypes
import os
import secrets
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from workers.guard_proc import read_process
from workers.processes import (
    Guard,
    boottime,
)

ROOT = Path(__file__).parents[2]
PR_SET_CHILD_SUBREAPER = 36
ENV = {"PATH": os.environ["PATH"]}

# A daemon by the book, which also clears its environment: nothing marks it any more.
DAEMON = """
import os, sys
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
os.execve("/bin/sleep", ["sleep", sys.argv[1]], {})
"""
AGENT = """
import os, pathlib, select, sys, time
from workers.processes import Guard, GuardDied, boottime
lock, command, fork = sys.argv[1:]
guard = Guard(pathlib.Path(lock))
guard.renew(boottime() + 60)
null = os.open("/dev/null", os.O_RDWR)
guard.spawn(1, ["/bin/sh", "-c", command], {**os.environ, "DTS_BOOT_ID": "boot"}, [null] * 3)
while not (pid := guard.pid):
    time.sleep(0.001)
print(pid, guard.process.pid, flush=True)
if fork == "fork" and not os.fork():
    time.sleep(60)
try:
    while select.select([guard], [], []):
        guard.read_events()
except GuardDied:
    guard.reap_orphans()
    print("reaped", flush=True)
time.sleep(60)
"""


def wait_until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.005)
    return value


def command_lines():
    """The NUL-terminated arguments of every process by its pid; a zombie has none."""
    lines = {}
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            lines[int(directory.name)] = (directory / "cmdline").read_bytes()
    return lines


def living(tag):
    """Pids of processes with this text among their arguments."""
    return [pid for pid, line in command_lines().items() if tag.encode() in line]


def sleepers(tag):
    """Pids of `sleep <tag>` alone, without the shells that have it in their script."""
    wanted = f"sleep\0{tag}\0".encode()
    return [pid for pid, line in command_lines().items() if line == wanted]


def spawn(guard, command, key=1, **options):
    """Starts a shell command, or an argv, on /dev/null unless given `fds`."""
    argv = ["/bin/sh", "-c", command] if isinstance(command, str) else command
    env = options.pop("env", ENV)
    with open(os.devnull, "r+b", buffering=0) as null:
        guard.spawn(key, argv, env, options.pop("fds", [null.fileno()] * 3), **options)


def events(guard, count=1, seconds=10):
    found = []
    deadline = time.monotonic() + seconds
    while len(found) < count:
        assert time.monotonic() < deadline, f"only {found}"
        select.select([guard], [], [], 0.1)
        found += guard.read_events()
    assert len(found) == count
    return found


def run(guard, command, **options):
    spawn(guard, command, **options)
    return events(guard)[0]


def output(guard, command, **options):
    """What a command writes to stdout and stderr."""
    reader, writer = os.pipe()
    with open(os.devnull, "rb") as null, open(reader, "rb") as pipe:
        spawn(guard, command, fds=[null.fileno(), writer, writer], **options)
        os.close(writer)
        events(guard)
        return os.read(pipe.fileno(), 1 << 16).decode()


def adopt_no_more() -> None:
    """A guard makes this process a subreaper: later tests' orphans would stay its zombies."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@pytest.fixture(name="guard")
def guard_fixture(tmp_path):
    with Guard(tmp_path / "guard.lock") as guard:
        guard.renew(boottime() + 60)
        yield guard
    adopt_no_more()


@pytest.fixture(name="tag")
def tag_fixture():
    """A length of sleep that no other process has, to tell ours by."""
    tag = f"600.{secrets.randbelow(10**12):012}"
    yield tag
    for pid in living(tag):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture(name="daemon")
def daemon_fixture(tmp_path, tag):
    script = tmp_path / "daemon.py"
    script.write_text(DAEMON)
    return f"{sys.executable} -S {script} {tag}"


@pytest.fixture(name="start_agent")
def start_agent_fixture(tmp_path):
    """Starts an agent process with one task; gives its Popen, its guard's and its warden's pid."""
    started = []

    def start(command, fork="no"):
        argv = [sys.executable, "-c", AGENT, str(tmp_path / "agent.lock"), command, fork]
        agent = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, start_new_session=True)
        started.append(agent)
        return agent, *map(int, agent.stdout.readline().split())

    yield start
    for agent in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(agent.pid, signal.SIGKILL)
        agent.communicate()


def is_gone(pid):
    process = read_process(pid)
    return process is None or process.is_dead
