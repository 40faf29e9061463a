"""Where the next scan of a lane's index begins: at its head, or where the last one ended.

What is deleted while somebody holds an old snapshot leaves dead entries in the index, and a scan
from the head steps over all of them each time (50,000 took 17 ms). A scan that resumes does not.
It overlooks what appears behind it: given back, or submitted late and more urgent. So scans do
begin at the head whenever that takes them no more than a fiftieth of the time; while dead entries
are few, that is nearly always.
"""

import time
from collections.abc import Mapping

HEAD_SCANS_SHARE = 1 / 50


class Marks:
    """By lane, the key up to which its index was read. For one process's scans of one index.

    `wide_lanes` is whether there are lanes of tasks that take several slots, for all one knows.
    """

    def __init__(self) -> None:
        self.wide_lanes = True
        self._marks: dict[int, tuple[int, ...]] = {}
        self._from_head = True
        self._began_at = self._head_again_at = 0.0

    def begin(self) -> Mapping[int, tuple[int, ...]]:
        """The marks that a scan about to be made starts from; a lane without one, at its head."""
        self._began_at = time.monotonic()
        self._from_head = self._began_at >= self._head_again_at
        if self._from_head:
            self._marks = {}
        return dict(self._marks)

    def end(self, reached: Mapping[int, tuple[int, ...]]) -> None:
        """Notes how far the scan came in each lane, and what it cost."""
        self._marks |= reached
        if self._from_head:
            now = time.monotonic()
            self._head_again_at = now + (now - self._began_at) / HEAD_SCANS_SHARE

    def forget(self, beyond: tuple[int, ...] = ()) -> None:
        """Lets lanes begin at their head whose mark lies beyond this key."""
        self._marks = {lane: mark for lane, mark in self._marks.items() if mark <= beyond}
