"""What the guard and the agent ask the kernel about processes (Linux: /proc and prctl).

Elsewhere these functions find nothing, and killing reaches process groups only.
"""

import contextlib
import ctypes
import os
import signal
from collections.abc import Iterator
from typing import NamedTuple

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
IGNORED_BY_PYTHON = {signal.SIGPIPE, signal.SIGXFSZ}  # tasks start without that
HANDLED = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


class Process(NamedTuple):
    """One line of /proc/<pid>/stat; `start_ticks` (since boot) tells a pid from its re-use."""

    pid: int
    state: str
    parent: int
    session: int
    start_ticks: int
    has_environ: bool

    @property
    def is_dead(self) -> bool:
        return self.state in "ZX"


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY)  # open() asks for size, kind and position too
    try:
        return b"".join(iter(lambda: os.read(fd, 1 << 16), b""))
    finally:
        os.close(fd)


def become_subreaper() -> bool:
    """Makes this process the new parent of every descendant whose own parent dies.

    Returns False where the system has no such thing.
    """
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    return prctl is not None and prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


def read_process(pid: int) -> Process | None:
    """The process `pid`, a zombie too; None when there is none."""
    try:
        stat = _read(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command stands in parentheses and may itself hold spaces and parentheses.
    fields = stat[stat.rindex(b")") + 2 :].split()
    return Process(
        pid,
        state=fields[0].decode(),
        parent=int(fields[1]),
        session=int(fields[3]),
        start_ticks=int(fields[19]),
        has_environ=fields[48] != b"0",
    )


def processes() -> Iterator[Process]:
    """Every process this one can see."""
    for name in os.listdir("/proc") if os.path.isdir("/proc") else []:
        if name.isdigit() and (process := read_process(int(name))):
            yield process


def children(pid: int | None = None) -> set[int]:
    """The direct children, zombies included, of a process with one thread (default: the caller).

    proc(5) calls this file unreliable while children go; they go only when reaped, and the one
    thread that reaps is the one that reads. New ones are appended.
    """
    pid = pid or os.getpid()
    try:
        return {int(child) for child in _read(f"/proc/{pid}/task/{pid}/children").split()}
    except FileNotFoundError:  # a kernel built without CONFIG_PROC_CHILDREN
        return {process.pid for process in processes() if process.parent == pid}


def environ(pid: int) -> bytes | None:
    """`NAME=value` entries, each between two NULs; none when it is gone or not ours to read.

    Returns None while the process is amid exec, between its old environment and its new one.
    """
    try:
        content = _read(f"/proc/{pid}/environ")
        if not content:
            process = read_process(pid)
            if process and not process.has_environ:
                return None
            content = _read(f"/proc/{pid}/environ")  # cleared, or given by now
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        content = b""
    return b"\0" + content + b"\0"


def send(pid: int, number: signal.Signals, *, group: bool = False) -> None:
    """Sends a signal; that the target is gone, or another user's, is not an error."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        (os.killpg if group else os.kill)(pid, number)


def wake_on_signals() -> int:
    """Lets signals wake the loop and do nothing more; returns the descriptor to watch.

    Tasks must start with default signals: an ignored one stays ignored in them, a handled one
    does not, so TERM, INT and HUP are handled here, by nothing.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    for number in signal.valid_signals() - IGNORED_BY_PYTHON:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    for number in HANDLED:
        signal.signal(number, lambda *_: None)
    readable, writable = os.pipe()
    os.set_blocking(readable, False)
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    return readable


def own_peak_bytes() -> int:
    """This process's own peak memory; 0 when unknown. (getrusage would count its parent's.)"""
    try:
        status = _read("/proc/self/status")
    except FileNotFoundError:
        return 0
    peak = status.partition(b"VmHWM:")[2].split(maxsplit=1)
    return int(peak[0]) * 1024 if peak else 0
