"""One task's process tree: how it starts, what is due for it, and what is told of its end."""

import json
import math
import os
import signal
import subprocess
import sys
from typing import Any

from workers.guard_proc import IGNORED_BY_PYTHON, own_peak_bytes, read_process, send
from workers.guard_wire import boottime

_EXEC_SHIM = os.path.join(os.path.dirname(__file__), "guard_exec.py")
_SPAWNS = sys.platform == "linux"  # elsewhere posix_spawn may lack setsid


class Tree:
    """A leader (the process started for a task, which leads a session) and all it begot."""

    own_peak = 0

    def __init__(
        self, key: int, pid: int, *, timeout_seconds: float | None, grace_seconds: float
    ) -> None:
        self.key = key
        self.pid = pid
        self.slot = 0
        self.grace_seconds = grace_seconds
        self.started_at = boottime()
        self.times_out_at = (
            math.inf if timeout_seconds is None else self.started_at + timeout_seconds
        )
        self.kill_at = math.inf
        self.reason: str | None = None
        self.killed_with_group = False
        self.ended_at: float | None = None
        self.escaped: set[int] = set()

    def due_at(self, lease_until: float) -> float:
        """When something must be done about it, by the clock of leases."""
        return self.kill_at if self.reason else min(self.times_out_at, lease_until)

    def terminate(self, reason: str) -> None:
        """Asks the leader's group to end, once; the first reason stands."""
        if self.reason or self.ended_at is not None:
            return
        self.reason = reason
        self.times_out_at = math.inf
        self.kill_at = boottime() + self.grace_seconds
        # To the group: a shell dies of it at once, and what it runs would get no grace at all.
        send(self.pid, signal.SIGTERM, group=True)
        send(self.pid, signal.SIGCONT, group=True)  # who is stopped would not see the TERM

    def kill(self) -> None:
        """Ends leader and group at once."""
        if self.ended_at is None:
            self.kill_at = math.inf
            self.killed_with_group = True
            self.kill_group()

    def kill_group(self) -> None:
        """One lock in the kernel covers the whole group, so no fork inside it escapes."""
        send(self.pid, signal.SIGKILL, group=True)

    def in_grace(self) -> bool:
        """Whether it was asked to end, and is not made to yet."""
        return self.reason is not None and not self.killed_with_group and boottime() < self.kill_at

    def leader_is_dead(self) -> bool:
        """Looks without reaping."""
        return bool(os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT))

    def note_end(self) -> None:
        self.ended_at = boottime()
        self.times_out_at = self.kill_at = math.inf

    def may_own(self, pid: int) -> bool:
        """Whether an orphan of unknown origin is no older than the leader."""
        orphan, leader = read_process(pid), read_process(self.pid)
        return bool(orphan and leader and orphan.start_ticks >= leader.start_ticks)

    def kill_orphan(self, pid: int) -> None:
        """Ends a process that outlived the leader."""
        if not (self.killed_with_group and os.getpgid(pid) == self.pid):
            self.escaped.add(pid)
        send(pid, signal.SIGKILL)

    def reap(self) -> dict[str, Any]:
        """Takes the leader's exit status; only now may its pid be used again."""
        _, status, usage = os.wait4(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        # Linux carries the memory of whoever spawned a process into its ru_maxrss. Ours only
        # grows, so it is read anew where the answer may change.
        peak = usage.ru_maxrss * 1024
        if peak > Tree.own_peak:
            Tree.own_peak = own_peak_bytes()
        return report(
            self.key,
            self.reason,
            pid=self.pid,
            exit_code=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            cpu_seconds=usage.ru_utime + usage.ru_stime,
            peak_memory_bytes=peak if peak > Tree.own_peak else None,
            started_at=self.started_at,
            ended_at=self.ended_at,
            escaped=len(self.escaped),
        )


def report(
    key: int, reason: str | None, error: str | None = None, **figures: Any
) -> dict[str, Any]:
    """An `ended` message; without figures, that of a task which never started."""
    now = boottime()
    never_started = {
        "pid": None,
        "exit_code": None,
        "signal": None,
        "cpu_seconds": 0.0,
        "peak_memory_bytes": None,
        "started_at": now,
        "ended_at": now,
        "escaped": 0,
    }
    return {"key": key, "reason": reason, "error": error, **never_started, **figures}


def start(
    fds: list[int],
    *,
    argv: list[str],
    env: dict[str, str],
    cwd: str | None,
    umask: int | None,
    nice: int | None,
    rlimits: dict[str, int] | None,
) -> int:
    """Starts a program as leader of a new session and returns its pid.

    `fds` become its stdin, stdout and stderr; a fourth keeps its number, told by DTS_RESULT_FD.
    Raises OSError, ValueError or the like when it cannot be started.
    """
    if len(fds) < 3:
        raise OSError("the guard has too many open files")
    if fds[3:]:
        env = {**env, "DTS_RESULT_FD": str(fds[3])}
    if nice or rlimits:
        # A Python started in the C locale sets LC_CTYPE (PEP 538), which the task did not ask for.
        unset = [] if "LC_CTYPE" in env else ["LC_CTYPE"]
        options = json.dumps({"nice": nice or 0, "rlimits": rlimits or {}, "unset": unset})
        argv = [sys.executable, "-I", "-S", _EXEC_SHIM, options, *argv]
    if _SPAWNS and os.path.dirname(argv[0]) and cwd is None and umask is None and not fds[3:]:
        return _spawn(fds, argv, env)
    process = subprocess.Popen(
        argv,
        env=env,
        cwd=cwd,
        stdin=fds[0],
        stdout=fds[1],
        stderr=fds[2],
        pass_fds=fds[3:],
        umask=-1 if umask is None else umask,
        start_new_session=True,
    )
    process.returncode = 0  # the guard reaps; Popen's finalizer would do so behind its back
    return process.pid


def _spawn(fds: list[int], argv: list[str], env: dict[str, str]) -> int:
    """What Popen does for a plain program, at half its price. It closes nothing: every other
    descriptor of the guard is close-on-exec."""
    return os.posix_spawn(
        argv[0],
        argv,
        env,
        file_actions=[(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(fds)],
        setsid=True,
        setsigdef=IGNORED_BY_PYTHON,
    )
