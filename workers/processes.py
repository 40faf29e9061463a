"""The agent's side of the guard: starting it, talking to it, and cleaning up when it is gone."""

import contextlib
import dataclasses
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from workers.guard_lock import GuardRunning, lock_is_free, locked, noted_leaders
from workers.guard_proc import become_subreaper, children, processes, send
from workers.guard_survivors import GIVE_UP_SECONDS, kill_marked, kill_survivors
from workers.guard_wire import Decoder, boottime, encode

__all__ = [
    "Ended",
    "Guard",
    "GuardDied",
    "GuardRunning",
    "boottime",
    "kill_survivors",
    "lock_is_free",
]

_GUARD = Path(__file__).with_name("guard.py")


class GuardDied(Exception):
    """The guard is gone. Call `Guard.reap_orphans` before anything else: tasks may live on."""


@dataclasses.dataclass(frozen=True, slots=True)
class Ended:
    """A task's whole process tree is dead, or never was. Times are `boottime()` seconds.

    `reason` is None where the task ended by itself. `exit_code` and `signal` are the leader's;
    `cpu_seconds` and `peak_memory_bytes` count it and the descendants that were waited for;
    the peak is None where it is not above the guard's own and so unknown. `escaped` processes
    outlived the leader and were killed.
    """

    key: int
    pid: int | None
    exit_code: int | None
    signal: int | None
    reason: str | None  # timed_out, cancelled, released, lease_lost, not_started, guard_died
    error: str | None
    cpu_seconds: float
    peak_memory_bytes: int | None
    started_at: float
    ended_at: float
    escaped: int

    @classmethod
    def with_guard(cls, key: int) -> Self:
        """The end of a task whose guard died, once `Guard.reap_orphans` has killed its tree."""
        now = boottime()
        nothing = dict.fromkeys(("pid", "exit_code", "signal", "error", "peak_memory_bytes"))
        return cls(
            key=key,
            reason="guard_died",
            cpu_seconds=0.0,
            started_at=now,
            ended_at=now,
            escaped=0,
            **nothing,
        )

    @property
    def duration_seconds(self) -> float:
        return self.ended_at - self.started_at


class Guard:
    """A guard process with its warden (`process`), and the way to speak with it.

    Any thread may call `spawn`, `kill` and `renew`; one reads events. `lock_path` is created if
    need be and stays locked while the guard lives. A guard that does not answer, or not read, for
    `patience_seconds` is killed. Raises GuardRunning where another guard holds the lock.
    """

    def __init__(self, lock_path: Path, *, patience_seconds: float = 15.0) -> None:
        self.lock_path = lock_path
        self.patience_seconds = patience_seconds
        self.mark = uuid.uuid4().hex
        self._unanswered: list[float] = []  # when leases were renewed, since one was answered
        self._sending = threading.Lock()
        self._decoder = Decoder()
        become_subreaper()
        self._own_children = {it.pid for it in processes() if it.parent == os.getpid()}
        with locked(lock_path) as lock_fd:
            self._socket, theirs = socket.socketpair()
            patience = struct.pack("ll", *divmod(int(patience_seconds * 1e6), 10**6))  # a timeval
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
            with theirs:
                self.process = self._start(theirs.fileno(), lock_fd)

    def _start(self, control_fd: int, lock_fd: int) -> subprocess.Popen[bytes]:
        """Without site-packages and with an environment of its own, the guard stays small.

        The mark in it is for its children between fork and exec, who still share it.
        """
        arguments = [str(os.getpid()), str(control_fd), str(lock_fd), self.mark]
        return subprocess.Popen(
            [sys.executable, "-S", "-P", str(_GUARD), *arguments],
            env={"PYTHONPATH": str(_GUARD.parent.parent), "DTS_TREE": f"{self.mark}."},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(control_fd, lock_fd),
            start_new_session=True,
        )

    @property
    def pid(self) -> int | None:
        """The guard's own, its warden's only child while both live; else None."""
        return next(iter(children(self.process.pid)), None)

    def fileno(self) -> int:
        """Readable when there are events to read."""
        return self._socket.fileno()

    def spawn(
        self,
        key: int,
        argv: Sequence[str],
        env: dict[str, str],
        fds: Sequence[int],
        *,
        cwd: str | None = None,
        timeout_seconds: float | None = None,
        grace_seconds: float = 10.0,
        umask: int | None = None,
        nice: int | None = None,
        rlimits: dict[str, int] | None = None,
    ) -> None:
        """Starts a program; exactly one `Ended` with this key follows.

        `fds` are its stdin, stdout and stderr, and optionally a pipe for its result, whose
        number the program finds in DTS_RESULT_FD. The caller closes its own copies. `rlimits`
        maps names as in setrlimit(2) without RLIMIT_ to both the soft and the hard limit.
        """
        program = {
            "argv": list(argv),
            "env": env,
            "cwd": cwd,
            "umask": umask,
            "nice": nice,
            "rlimits": rlimits,
        }
        terms = {"timeout_seconds": timeout_seconds, "grace_seconds": grace_seconds}
        self._send({"verb": "spawn", "key": key, **program, **terms}, fds)

    def kill(self, key: int, reason: str, *, now: bool = False) -> None:
        """TERM, the task's grace, then KILL; `now` skips the grace. Too late is no error."""
        self._send({"verb": "kill", "key": key, "reason": reason, "now": now})

    def renew(self, until: float) -> None:
        """Tasks may start and run until this `boottime()`; then the guard begins to kill them."""
        if self._is_sick():
            self._put_down()
        self._unanswered.append(boottime())
        self._send({"verb": "lease", "until": until})

    def _is_sick(self) -> bool:
        """Whether it has long answered no renewal, of which there were at least three: an agent
        that was itself stopped has yet to read the answers."""
        unanswered = self._unanswered[:]
        return len(unanswered) >= 3 and boottime() - unanswered[0] > self.patience_seconds

    def _put_down(self) -> None:
        """Kills a guard that may itself kill too late; GuardDied follows."""
        pid = self.pid
        send(pid or self.process.pid, signal.SIGKILL, group=not pid)

    def _send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        frame = memoryview(encode(message))
        try:
            with self._sending:
                sent = socket.send_fds(self._socket, [frame], list(fds)) if fds else 0
                self._socket.sendall(frame[sent:])
        except OSError as error:
            if isinstance(error, BlockingIOError):  # a part of a frame may be sent
                self._put_down()
            elif not isinstance(error, ConnectionError) and self._socket.fileno() >= 0:
                raise
            raise GuardDied(f"the guard of {self.lock_path} is gone") from error

    def read_events(self) -> list[Ended]:
        """What has ended since the last call, possibly nothing; never blocks.

        Raises GuardDied once everything the guard still said has been read.
        """
        try:
            data = self._socket.recv(1 << 16, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return []
        except ConnectionError:
            data = b""
        if not data:
            raise GuardDied(f"the guard of {self.lock_path} is gone")
        messages = list(self._decoder.feed(data))
        if any("lease" in message for message in messages):
            self._unanswered.clear()
        return [Ended(**message) for message in messages if "lease" not in message]

    def close(self, timeout_seconds: float = 10.0) -> bool:
        """Kills all tasks at once; True when the guard has seen them dead and is gone."""
        self._socket.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout_seconds)
        return self.process.returncode is not None

    def reap_orphans(self) -> None:
        """After GuardDied: returns when all that the guard's tasks left is dead.

        The warden sees to that. If it was killed as well, or is stopped and so killed here, they
        are children of the agent. Raises TimeoutError when a process withstands SIGKILL.
        """
        self._socket.close()
        try:
            self.process.wait(GIVE_UP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.returncode < 0:
            kill_marked(f"DTS_TREE={self.mark}.", noted_leaders(self.lock_path), self._adopted)

    def _adopted(self) -> set[int]:
        """Children, zombies included, that this process did not start: not of its session, and
        not there before the guard was."""
        pid, session = os.getpid(), os.getsid(0)
        return {
            it.pid
            for it in processes()
            if it.parent == pid and it.session != session and it.pid not in self._own_children
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
