"""The warden: the guard's parent, who ends all that the guard began once guard or agent is dead.

As child subreaper it is the next parent of whatever a killed guard leaves behind, in whatever
session and with whatever environment. It does nothing but wait, in memory shared with the guard,
and goes when it has no descendant left. The guard in turn watches the warden, and the agent
replaces both: of the three, any two may be killed at one instant.
"""

import os
import selectors
import signal
import socket
import time
from typing import NoReturn

from workers.guard_proc import become_subreaper, children, send, wake_on_signals

_LOOK_AGAIN_SECONDS = 0.01


def fork_guard(agent_pid: int, control: socket.socket) -> int:
    """Becomes the warden and returns in its child, the guard: with a pidfd of the warden."""
    agent_fd, warden_fd = os.pidfd_open(agent_pid), os.pidfd_open(os.getpid())
    agent_lives = os.getppid() == agent_pid  # so it is the agent that the pidfd is of
    if guard_pid := os.fork():
        control.close()  # the guard's end of it: the agent is to see that go
        _watch(guard_pid, [agent_fd] if agent_lives else [])
    os.close(agent_fd)
    become_subreaper()  # which is not inherited
    return warden_fd


def _watch(guard_pid: int, agent_fds: list[int]) -> NoReturn:
    """Waits for the end of guard or agent, and ends all that is left of the guard's."""
    selector = selectors.DefaultSelector()
    woken = wake_on_signals()
    for fd in [woken, *agent_fds]:
        selector.register(fd, selectors.EVENT_READ)
    ready: set[int] = set()
    while not _is_dead(guard_pid) and ready.isdisjoint(agent_fds):
        ready = {key.fd for key, _ in selector.select()}
        if woken in ready:
            os.read(woken, 4096)
    _kill_descendants()
    os._exit(0)


def _is_dead(guard_pid: int) -> bool:
    """Reaps a dead guard, and lets a stopped one go on: it could not enforce the lease."""
    what = os.WEXITED | os.WSTOPPED | os.WNOHANG
    while change := os.waitid(os.P_PID, guard_pid, what):
        if change.si_code != os.CLD_STOPPED:
            return True
        send(guard_pid, signal.SIGCONT)
    return False


def _kill_descendants() -> None:
    """Until there is none: the children of a dead one become this process's own."""
    own_group = os.getpgrp()
    while pids := _children():
        for pid in pids:
            group = os.getpgid(pid)
            # By group, which one lock in the kernel covers, so that no fork inside it escapes.
            send(pid if group == own_group else group, signal.SIGKILL, group=group != own_group)
        if not any(os.waitpid(pid, os.WNOHANG)[0] for pid in pids):
            time.sleep(_LOOK_AGAIN_SECONDS)


def _children() -> set[int]:
    while True:
        try:
            return children()
        except OSError:  # out of descriptors or memory, for a while
            time.sleep(_LOOK_AGAIN_SECONDS)
