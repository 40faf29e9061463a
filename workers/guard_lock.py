"""The guard's lock file: held while the guard lives, and in it the sessions it leads.

If the guard is killed, its tasks go on until somebody ends them. Most carry a mark in their
environment; a command such as `env -i program` does not, so its session is noted here.
One record of fixed length a slot, so that a write leaves every other record as it is.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator

from workers.guard_proc import read_process

_RECORD = b"%10d %15d %15d\n"
_LENGTH = 43
_TICKS = os.sysconf("SC_CLK_TCK")
_Path = str | os.PathLike[str]


class GuardRunning(Exception):
    """The lock file is held: a guard of this worker is alive on this machine."""


@contextlib.contextmanager
def locked(path: _Path) -> Iterator[int]:
    """An open, empty, locked file; the lock lasts as long as any copy of the descriptor."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not _try_lock(fd, fcntl.LOCK_EX):
            raise GuardRunning(f"{path} is locked: its worker already runs on this machine")
        os.ftruncate(fd, 0)
        yield fd
    finally:
        os.close(fd)


def lock_is_free(path: _Path) -> bool:
    """Whether the guard that had this lock file is provably gone from this machine."""
    try:
        with open(path, "rb") as file:
            return _try_lock(file.fileno(), fcntl.LOCK_SH)
    except FileNotFoundError:
        return True


def _try_lock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def note_session(fd: int, slot: int, pid: int, after: float, before: float) -> None:
    """Puts a session's leader in a slot, over whom it held before; a full disk is no error.

    It started `after` and `before` these moments since boot, which tells its pid from a re-use.
    """
    with contextlib.suppress(OSError):
        record = _RECORD % (pid, int(after * _TICKS), int(before * _TICKS))
        os.pwrite(fd, record, slot * _LENGTH)


def noted_leaders(path: _Path) -> set[int]:
    """The pids of noted leaders that exist, zombies included; a re-used pid is not one of them."""
    try:
        with open(path, "rb") as file:
            content = file.read()
    except FileNotFoundError:
        return set()
    records = (content[at : at + _LENGTH].split() for at in range(0, len(content), _LENGTH))
    return {
        pid
        for pid, after, before in (map(int, record) for record in records if len(record) == 3)
        if (process := read_process(pid)) and after <= process.start_ticks <= before
    }
