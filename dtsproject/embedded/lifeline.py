"""Ties a server to the life of the process that started it, whichever way that process ends."""

import ctypes
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from .account import Account

PR_SET_PDEATHSIG = 1
# Waits for end of file on the pipe, then stops the server if it is still the same one.
WATCHER = 'cat >/dev/null; [ "$(head -n 1 "$2")" = "$1" ] && kill -INT "$1"'


def kernel_can_tell() -> bool:
    """Whether the kernel signals a child when we end. It watches the thread, not the process."""
    return sys.platform == "linux" and threading.current_thread() is threading.main_thread()


def signal_on_parent_exit(number: int) -> Callable[[], None] | None:
    """A `preexec_fn` by which the child gets this signal when this process ends, if one can."""
    if not kernel_can_tell():
        return None
    parent, prctl = os.getpid(), ctypes.CDLL(None).prctl

    def arm() -> None:
        prctl(PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # it ended before the line above
            os._exit(1)

    return arm


def watch(pid: int, pid_file: Path, account: Account) -> None:
    """Where the kernel cannot tell: a small process stops server `pid` when our pipe closes."""
    read, _kept_open_for_life = os.pipe()
    command = ["/bin/sh", "-c", WATCHER, "sh", str(pid), str(pid_file)]
    subprocess.Popen(command, stdin=read, start_new_session=True, **account.options())
    os.close(read)
