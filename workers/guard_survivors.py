"""Kills what tasks left behind when their guard could not: it was itself killed."""

import contextlib
import os
import signal
import time
from collections.abc import Callable

from workers.guard_lock import noted_leaders
from workers.guard_proc import environ, processes, send

_LOOK_AGAIN_SECONDS = 0.01
GIVE_UP_SECONDS = 5.0


def kill_survivors(boot_id: str, lock_path: str | os.PathLike[str]) -> int:
    """Kills what a former boot's tasks left, its agent and guard both dead; returns how many.

    They are known by DTS_BOOT_ID in their environment and by the sessions the guard noted. To be
    called while that guard's lock is free and before a new Guard takes (and empties) the file.
    Raises TimeoutError as `kill_marked` does.
    """
    return kill_marked(f"DTS_BOOT_ID={boot_id}\0", noted_leaders(lock_path))


def kill_marked(entry: str, leaders: set[int], adopted: Callable[[], set[int]] = set) -> int:
    """Kills processes until none has an environment entry that starts so, is in a leader's
    session, was `adopted`, or descends from one of these; returns how many that were.

    Reaps those that became children of this process. Raises TimeoutError when a process
    withstands SIGKILL for 5 seconds.
    """
    give_up_at = time.monotonic() + GIVE_UP_SECONDS
    killed: set[int] = set()
    empty_looks = 0
    while empty_looks < 2:  # one can miss a process amid fork or exec
        pids = _find(entry, leaders, adopted())
        empty_looks = 0 if pids else empty_looks + 1
        if pids and time.monotonic() > give_up_at:
            raise TimeoutError(f"these processes cannot be killed: {sorted(pids)}")
        killed |= pids
        for pid in pids:
            send(pid, signal.SIGKILL)
        time.sleep(_LOOK_AGAIN_SECONDS)
    for pid in killed | leaders | adopted():
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    return len(killed)


def _find(entry: str, leaders: set[int], adopted: set[int]) -> set[int]:
    wanted = b"\0" + entry.encode()
    living = [it for it in processes() if not it.is_dead and it.pid != os.getpid()]
    found = {
        it.pid
        for it in living
        if it.pid in adopted or it.session in leaders or wanted in (environ(it.pid) or b"")
    }
    while more := {it.pid for it in living if it.parent in found} - found:
        found |= more
    return found
