"""One started process, and what it prints until its end."""

import os
import selectors
from collections.abc import Iterable

from jobs.specs import Claimed
from workers.capture import Capture

READ_BYTES = 64 * 1024


class Run:
    """A task's process, until its end is known and all it printed was taken.

    `captured` holds what was read of each stream, `pipes` the reading ends that are still open.
    """

    __slots__ = ("captured", "is_over", "pipes", "selector", "task")

    def __init__(self, task: Claimed) -> None:
        self.task = task
        self.captured: dict[str, Capture] = {}
        self.pipes: dict[str, int] = {}
        self.selector: selectors.BaseSelector | None = None
        self.is_over = False

    def open(self, names: Iterable[str]) -> list[int]:
        """Makes a pipe for each stream; returns their writing ends."""
        writers = []
        for name in names:
            self.pipes[name], writer = os.pipe()
            self.captured[name] = Capture()
            writers.append(writer)
        return writers

    def watch(self, selector: selectors.BaseSelector) -> None:
        """Has `selector` tell when there is something to read: its data is (run, stream)."""
        self.selector = selector
        for name, fd in self.pipes.items():
            selector.register(fd, selectors.EVENT_READ, (self, name))

    def read(self, name: str) -> None:
        """Takes some of what there is, or blocks for it."""
        if name not in self.pipes:
            return
        if data := os.read(self.pipes[name], READ_BYTES):
            self.captured[name].feed(data)
        else:
            self._close(name)

    def finish(self) -> None:
        """The tree is dead, so all it printed is in the pipes: nobody can add to them."""
        for name, fd in list(self.pipes.items()):
            os.set_blocking(fd, False)
            try:
                while data := os.read(fd, READ_BYTES):
                    self.captured[name].feed(data)
            except BlockingIOError:
                pass
            self._close(name)
        self.is_over = True

    def _close(self, name: str) -> None:
        fd = self.pipes.pop(name)
        if self.selector:
            self.selector.unregister(fd)
        os.close(fd)


def stdin(data: bytes) -> int:
    """A descriptor to read `data` from."""
    if not data:
        return os.open(os.devnull, os.O_RDONLY)
    fd = os.memfd_create("stdin", os.MFD_CLOEXEC)
    with open(fd, "wb", closefd=False) as file:
        file.write(data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
