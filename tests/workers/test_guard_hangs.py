"""A task whose working directory is on a mount that answers nobody: it alone hangs."""

import ctypes
import os
import signal
from pathlib import Path

import pytest

from tests.workers.guarded import (  # noqa: F401  fixtures
    events,
    guard_fixture,
    run,
    spawn,
    wait_until,
)
from workers.guard_proc import children, read_process
from workers.processes import GuardDied, lock_is_free

MNT_DETACH = 2
NOT_CONNECTED = "[Errno 107] Transport endpoint is not connected"


@pytest.fixture
def mount(tmp_path):
    """A folder on a FUSE file system that nobody serves; gives it and how to let it fail."""
    folder = tmp_path / "mount"
    folder.mkdir()
    try:
        device = os.open("/dev/fuse", os.O_RDWR)
    except OSError:
        pytest.skip("mounting needs root and /dev/fuse")
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
    libc = ctypes.CDLL(None)
    if libc.mount(b"dts-test", bytes(folder), b"fuse", 0, options):
        os.close(device)
        pytest.skip("mounting needs root")
    open_files = [device]

    def fail() -> None:
        while open_files:
            os.close(open_files.pop())

    yield str(folder), fail
    fail()  # first: what hangs on it goes on, with an error
    libc.umount2(bytes(folder), MNT_DETACH)


def hung(guard):
    """The guard's children in uninterruptible sleep."""
    found = map(read_process, children(guard.pid))
    return [process.pid for process in found if process and process.state == "D"]


def test_the_others_start_and_end_meanwhile(guard, mount):
    folder, fail = mount
    spawn(guard, "exit 0", key=1, cwd=folder)
    wait_until(lambda: hung(guard))

    others = [run(guard, "exit 3", key=2), run(guard, "exit 3", key=3, nice=1)]

    assert [ended.exit_code for ended in others] == [3, 3]
    fail()
    (first,) = events(guard)
    assert (first.key, first.reason) == (1, "not_started")
    assert first.error == f"cannot start: {NOT_CONNECTED}: '{folder}'"


def test_its_timeout_ends_it(guard, mount):
    spawn(guard, "exit 0", cwd=mount[0], timeout_seconds=0.3, grace_seconds=0.2)
    (ended,) = events(guard)
    assert (ended.reason, ended.exit_code) == ("timed_out", None)
    assert 0.3 <= ended.duration_seconds < 5


@pytest.mark.parametrize("now", [False, True])
def test_a_cancel_ends_it(guard, mount, now):
    spawn(guard, "exit 0", cwd=mount[0])
    guard.kill(1, "cancelled", now=now)
    assert events(guard)[0].reason == "cancelled"
    assert not hung(guard)


def test_it_leaves_the_guard_no_descriptor(guard, mount):
    run(guard, "exit 0")
    files = os.listdir(f"/proc/{guard.pid}/fd")
    for key in range(5):
        spawn(guard, "exit 0", key=key, cwd=mount[0], timeout_seconds=0.1, grace_seconds=0)
    events(guard, 5)
    assert os.listdir(f"/proc/{guard.pid}/fd") == files


def test_it_holds_nothing_of_the_guards(guard, mount):
    """Who waits for the guard's end, or for its lock, does not wait for the mount."""
    spawn(guard, "exit 0", cwd=mount[0])
    wait_until(lambda: hung(guard))
    (pid,) = hung(guard)
    files = [os.readlink(file) for file in Path(f"/proc/{pid}/fd").iterdir()]
    assert files.count("/dev/null") == 3
    assert [file for file in files if file.startswith("pipe:")] == files[3:]

    os.kill(guard.pid, signal.SIGKILL)
    with pytest.raises(GuardDied):
        wait_until(guard.read_events)
    guard.reap_orphans()
    assert lock_is_free(guard.lock_path)
    assert read_process(pid) is None
