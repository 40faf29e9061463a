"""How a task's program is started: the cheap way where it is plain, by fork where it is not.

What can hang, such as a chdir into a network mount whose server is gone, happens in the child:
the guard goes on, and the child can be killed as the task that it already is.
"""

import contextlib
import os
import resource
import signal
import sys
from typing import Any, NamedTuple, NoReturn

from workers.guard_proc import HANDLED, IGNORED_BY_PYTHON

_SPAWNS = sys.platform == "linux"  # elsewhere posix_spawn may lack setsid
_OPEN_FILES = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"
_LONGEST_ERROR_BYTES = 4096  # what a pipe takes at once
_IN_SESSION = b"."


class Started(NamedTuple):
    """A leader of a new session. `start_fd`, non-blocking, is at its end once it has become its
    program, or says why it could not."""

    pid: int
    start_fd: int | None


def start(
    fds: list[int],
    *,
    argv: list[str],
    env: dict[str, str],
    cwd: str | None,
    umask: int | None,
    nice: int | None,
    rlimits: dict[str, int] | None,
) -> Started:
    """Starts a program as leader of a new session.

    `fds` become its stdin, stdout and stderr; a fourth keeps its number, told by DTS_RESULT_FD.
    Raises OSError, ValueError or the like when it is known at once that it cannot be started.
    """
    if len(fds) < 3:
        raise OSError("the guard has too many open files")
    if fds[3:]:
        env = {**env, "DTS_RESULT_FD": str(fds[3])}
    is_plain = cwd is None and umask is None and not nice and not rlimits and not fds[3:]
    if _SPAWNS and is_plain and os.path.dirname(argv[0]):
        return Started(_spawn(fds, argv, env), None)
    return _fork(fds, argv=argv, env=env, cwd=cwd, umask=umask, nice=nice, rlimits=rlimits)


def _spawn(fds: list[int], argv: list[str], env: dict[str, str]) -> int:
    """At half the price of a fork. It closes nothing: every other descriptor of the guard is
    close-on-exec."""
    return os.posix_spawn(
        argv[0],
        argv,
        env,
        file_actions=[(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(fds)],
        setsid=True,
        setsigdef=IGNORED_BY_PYTHON,
    )


def _fork(fds: list[int], **program: Any) -> Started:
    """Returns when the child leads its session, so that a signal to its group finds it.

    Code between fork and exec is safe here: the guard has one thread.
    """
    reader, writer = os.pipe()
    try:
        pid = os.fork()
        if not pid:
            _become(fds, writer, **program)
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    os.read(reader, len(_IN_SESSION))
    os.set_blocking(reader, False)
    return Started(pid, reader)


def _become(fds: list[int], writer: int, **program: Any) -> NoReturn:
    """Turns the child into the program; else tells why that cannot be, and ends."""
    try:
        signal.set_wakeup_fd(-1)
        for number in HANDLED | IGNORED_BY_PYTHON:  # what is ignored would stay so
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        os.write(writer, _IN_SESSION)
        _take(fds, writer)
        _exec(**program)
    except BaseException as error:
        text = str(error).encode(errors="surrogateescape")
        os.write(writer, text[:_LONGEST_ERROR_BYTES] or b"unknown")
    finally:
        os._exit(127)


def _take(fds: list[int], writer: int) -> None:
    """Nothing of the guard's stays open, its lock least of all: exec may be long in coming."""
    for number, fd in enumerate(fds[:3]):
        os.dup2(fd, number)
    kept = {0, 1, 2, writer, *fds[3:]}
    for fd in {int(name) for name in os.listdir(_OPEN_FILES)} - kept:
        with contextlib.suppress(OSError):  # the one of listdir
            os.close(fd)
    for fd in fds[3:]:
        os.set_inheritable(fd, True)


def _exec(
    *,
    argv: list[str],
    env: dict[str, str],
    cwd: str | None,
    umask: int | None,
    nice: int | None,
    rlimits: dict[str, int] | None,
) -> NoReturn:
    if cwd is not None:
        os.chdir(cwd)
    if umask is not None:
        os.umask(umask)
    os.nice(nice or 0)
    for name, limit in (rlimits or {}).items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name.upper()}"), (limit, limit))
    try:
        os.execvpe(argv[0], argv, env)  # noqa: S606  no shell is the point
    except OSError as error:
        error.filename = argv[0]  # not the last place where it was looked for
        raise
