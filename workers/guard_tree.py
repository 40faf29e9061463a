"""One task's process tree: what is due for it, and what is told of its end."""

import math
import os
import signal
from typing import Any

from workers.guard_proc import own_peak_bytes, read_process, send
from workers.guard_start import Started
from workers.guard_wire import boottime

_START_ERROR_BYTES = 1 << 16


class Tree:
    """A leader (the process started for a task, which leads a session) and all it begot."""

    own_peak = 0

    def __init__(
        self, key: int, started: Started, *, timeout_seconds: float | None, grace_seconds: float
    ) -> None:
        self.key = key
        self.pid, self.start_fd = started
        self.start_error: str | None = None
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

    def look_at_start(self) -> None:
        """Notes whether the leader has become its program, as soon as that is known."""
        if self.start_fd is None:
            return
        try:
            error = os.read(self.start_fd, _START_ERROR_BYTES)
        except BlockingIOError:
            return
        os.close(self.start_fd)
        self.start_fd = None
        if error:
            self.start_error = f"cannot start: {error.decode(errors='surrogateescape')}"

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
        self.look_at_start()
        _, status, usage = os.wait4(self.pid, 0)
        if self.start_error and not self.reason:
            return report(self.key, "not_started", self.start_error)
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
