"""The one runner of everything that goes round: scheduler, recovery, a worker's heartbeat."""

import contextlib
import os
import random
import select
import signal
import threading
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog
from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection

from dtsproject.backoff import LONGEST_SECONDS, Backoff
from dtsproject.errors import Unreachable
from dtsproject.wakeups import Listener

log = structlog.get_logger(__name__)


class Loop:
    """Calls `tick` until asked to stop. A subclass defines `tick` and may override the rest.

    When a tick moved at least `full_tick` rows the next follows at once; else after
    `interval_seconds` (give or take a tenth, so that many loops spread out) or a wake-up on one
    of `channels`. An error of the database closes the connection and backs off, with jitter,
    whatever wakes it; so does a server out of reach.
    """

    interval_seconds = 1.0
    longest_backoff_seconds = LONGEST_SECONDS
    full_tick = 1
    channels: Sequence[str] = ()

    def __init__(self) -> None:
        self.stopping = False
        self._retry_at = 0.0
        self._listener = Listener(*self.channels) if self.channels else None
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        for fd in (self._wake_read, self._wake_write):
            weakref.finalize(self, os.close, fd)

    def tick(self) -> int:
        """Does a bounded batch of work. Returns how many rows it moved."""
        raise NotImplementedError

    def pause(self) -> float:
        """How many seconds to wait after a tick that moved less than `full_tick`."""
        return self.interval_seconds

    def lost_contact(self) -> None:
        """Called after a tick that failed for the database's or the network's sake, and at each
        wake-up until the next tick."""

    def show_life(self) -> None:
        """Called before each tick."""
        touch_liveness_file()

    def run(self, *, once: bool = False) -> None:
        backoff = Backoff(self.longest_backoff_seconds)
        while not self.stopping:
            self.show_life()
            try:
                moved = self.tick()
            except (DatabaseError, Unreachable) as error:
                if once:
                    raise
                log.warning("no_answer", loop=type(self).__name__, error=str(error).strip())
                connection.close()
                self._back_off(backoff.next(getattr(error, "retry_after_seconds", 0.0)))
                continue
            if once:
                return
            backoff.reset()
            if moved < self.full_tick:
                self.wait(self.pause() * random.uniform(0.9, 1.1))  # noqa: S311

    def _back_off(self, seconds: float) -> None:
        self._retry_at = time.monotonic() + seconds
        while not self.stopping and (left := self._retry_at - time.monotonic()) > 0:
            self.lost_contact()
            self.wait(left)

    def retry(self) -> None:
        """Ends a backoff, from any thread: the other side has answered somebody else."""
        self._retry_at = 0.0
        self.wake()

    def wait(self, seconds: float) -> None:
        """Sleeps until the time is over, a channel is heard or `wake` is called."""
        listening = self.listening()
        poll = select.poll()  # not `select`: many tasks' pipes may push a number above 1023
        for fd in (self._wake_read, listening):
            if fd is not None:
                poll.register(fd, select.POLLIN)
        readable = {fd for fd, _ in poll.poll(1000 * seconds)}
        if self._wake_read in readable:
            os.read(self._wake_read, 4096)
        if listening in readable:
            self.hear()

    def listening(self) -> int | None:
        """A descriptor that is readable when a wake-up has come."""
        return self._listener.fileno() if self._listener else None

    def hear(self) -> None:
        """Takes note of the wake-ups that have come."""
        if self._listener:
            self._listener.heard()

    def wake(self) -> None:
        """Ends a `wait`, from any thread or signal handler."""
        with contextlib.suppress(BlockingIOError):  # the pipe is full of wake-ups already
            os.write(self._wake_write, b".")

    def stop(self) -> None:
        self.stopping = True
        self.wake()


def touch_liveness_file() -> None:
    """Says to a probe outside that this process goes round (settings.LIVENESS_FILE)."""
    if settings.LIVENESS_FILE:
        Path(settings.LIVENESS_FILE).touch()


def stop_on_signals(stop: Any, insist: Any = None) -> None:
    """SIGTERM or SIGINT calls `stop`; a second one calls `insist`, or else kills as usual."""
    asked = threading.Event()

    def handle(number: int, frame: object) -> None:
        if not asked.is_set():
            asked.set()
            stop()
        elif insist:
            insist()
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)
