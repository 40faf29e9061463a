"""The guard: one small process per worker agent, the parent of every task.

It starts tasks, reaps them, and sees to it that a task's whole process tree is dead before it
says so: at the task's end, its timeout, a cancel, the end of the lease, or the agent's death.
One thread; it imports the standard library and guard_*.py only. Started by
`workers.processes.Guard` as: guard.py <agent pid> <control socket fd> <lock file fd> <mark>
That process becomes the guard's warden (guard_warden.py); the guard is its child.

Beyond its reach are processes not descended from the task (docker run, systemd-run, at), and
those that a set-user-ID program runs as another user: these keep their task from being reported.
Outside Linux, as far as os.waitid exists, there is neither subreaper nor /proc: a tree is its
process group, and escapes are not seen.
"""

import errno
import os
import selectors
import socket
import sys
from array import array
from collections import deque
from collections.abc import Callable
from typing import Any

from workers.guard_lock import note_session
from workers.guard_proc import become_subreaper, wake_on_signals
from workers.guard_reaper import Reaper
from workers.guard_start import start
from workers.guard_tree import Tree, report
from workers.guard_warden import fork_guard
from workers.guard_wire import Decoder, boottime, encode

_WATCH_SECONDS = 1.0  # the longest wait with tasks: poll() does not count a suspend, leases do
_DYING_SECONDS = 0.05  # between two looks at a tree that is slow to die
_FDS_BYTES = socket.CMSG_LEN(4 * array("i").itemsize)
_LOOK_AGAIN = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class GuardProcess:
    """The loop: control messages, SIGCHLD and the nearest deadline wake it."""

    def __init__(self, control: socket.socket, sessions_fd: int, mark: str) -> None:
        self.control = control
        self.sessions_fd = sessions_fd
        for fd in control.fileno(), sessions_fd:  # no task may have them: see `start`
            os.set_inheritable(fd, False)
        self.mark = mark
        self.reaper = Reaper(mark)
        self.lease_until = 0.0
        self.is_giving_up = False
        self.decoder = Decoder()
        self.fds_received: deque[list[int]] = deque()
        self.outgoing = bytearray()
        self.selector = selectors.DefaultSelector()

    def run(self, warden_fd: int | None) -> None:
        self.control.setblocking(False)
        self.watch(self.control, self.receive)
        self.watch(wake_on_signals(), lambda fd: os.read(fd, 4096))
        if warden_fd is not None:
            self.watch(warden_fd, self.give_up)
        while self.reaper.trees or not self.is_giving_up:
            heard = self.selector.select(self.patience())
            for ready, _ in heard:
                ready.data(ready.fileobj)
            self.enforce()
            if [ready.fileobj for ready, _ in heard] != [self.control]:  # else no child changed
                self.collect()
            self.flush()

    def watch(self, file: Any, callback: Callable[[Any], object]) -> None:
        self.selector.register(file, selectors.EVENT_READ, callback)

    def patience(self) -> float | None:
        """Seconds until something is due; None when there is nothing to wait for."""
        trees = self.reaper.trees.values()
        if not trees:
            return None
        if any(tree.ended_at is not None for tree in trees):
            return _DYING_SECONDS
        due_at = min(tree.due_at(self.lease_until) for tree in trees)
        return min(max(due_at - boottime(), 0.0), _WATCH_SECONDS)

    def enforce(self) -> None:
        """Acts on what is due: giving up, the end of the lease, timeouts, graces."""
        now = boottime()
        for tree in self.reaper.trees.values():
            if self.is_giving_up:
                tree.kill()
            if now >= self.lease_until:
                tree.terminate("lease_lost")
            if now >= tree.times_out_at:
                tree.terminate("timed_out")
            if now >= tree.kill_at:
                tree.kill()

    def collect(self) -> None:
        """Tells of each tree that is dead; while /proc cannot be read, of none."""
        try:
            for ended in self.reaper.collect():
                self.outgoing += encode(ended)
        except OSError as error:
            if error.errno not in _LOOK_AGAIN:
                raise

    def receive(self, control: socket.socket) -> None:
        try:
            # Not socket.recv_fds, which drops the flag: a task would inherit what is received.
            data, ancillary, flags, _ = control.recvmsg(1 << 16, _FDS_BYTES, _CLOSE_ON_EXEC)
        except BlockingIOError:  # woken to write
            return
        except ConnectionError:  # it left without reading all it was told
            data, ancillary, flags = b"", [], 0
        if not data:
            return self.give_up(control)
        fds = list(array("i", b"".join(content for _, _, content in ancillary)))
        if flags & socket.MSG_CTRUNC:  # cut short by our own limit of open files
            _close(fds)
            self.fds_received.append([])
        elif fds:
            self.fds_received.append(fds)
        for message in self.decoder.feed(data):
            getattr(self, f"on_{message.pop('verb')}")(**message)

    def on_lease(self, until: float) -> None:
        self.lease_until = until
        self.outgoing += encode({"lease": until})

    def on_kill(self, key: int, reason: str, now: bool) -> None:
        if tree := self.reaper.trees.get(key):
            tree.terminate(reason)
            if now:
                tree.kill()

    def on_spawn(
        self,
        key: int,
        env: dict[str, str],
        timeout_seconds: float | None,
        grace_seconds: float,
        **program: Any,
    ) -> None:
        fds = self.fds_received.popleft()
        try:
            asked_at = boottime()
            if asked_at >= self.lease_until:
                self.outgoing += encode(report(key, "lease_lost", "the lease had ended"))
                return
            started = start(fds, env={**env, "DTS_TREE": f"{self.mark}.{key}"}, **program)
        except Exception as error:  # nothing about one task may end the parent of all
            self.outgoing += encode(report(key, "not_started", f"cannot start: {error}"))
            return
        finally:
            _close(fds)
        tree = Tree(key, started, timeout_seconds=timeout_seconds, grace_seconds=grace_seconds)
        self.reaper.add(tree)
        note_session(self.sessions_fd, tree.slot, tree.pid, asked_at, tree.started_at)

    def flush(self) -> None:
        """Writes what the socket takes; the rest when the agent has read."""
        if self.is_giving_up:
            return
        try:
            while self.outgoing:
                del self.outgoing[: self.control.send(self.outgoing)]
        except BlockingIOError:
            pass
        except ConnectionError:
            return self.give_up(self.control)
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.outgoing else 0)
        if self.selector.get_key(self.control).events != wanted:
            self.selector.modify(self.control, wanted, self.receive)

    def give_up(self, _: object) -> None:
        """Agent or warden is gone, and the other replaces this guard: `enforce` kills all."""
        self.is_giving_up = True
        for ready in list(self.selector.get_map().values()):
            if ready.data in (self.receive, self.give_up):
                self.selector.unregister(ready.fileobj)


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)


def main(agent_pid: str, control_fd: str, lock_fd: str, mark: str) -> None:
    control = socket.socket(fileno=int(control_fd))
    warden_fd = fork_guard(int(agent_pid), control) if become_subreaper() else None
    GuardProcess(control, int(lock_fd), mark).run(warden_fd)


if __name__ == "__main__":
    main(*sys.argv[1:])
