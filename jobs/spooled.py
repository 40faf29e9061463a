"""The tasks of a job too long for memory, on disk between being checked and being stored."""

import pickle
from collections.abc import Iterator
from itertools import islice
from tempfile import TemporaryFile

from jobs.labels import LaneKey, lane_key
from jobs.specs import TaskSpec

BATCH = 2_000


class Spooled:
    """Tasks by the batch, to be read as often as wanted; the disk forgets them with this object."""

    def __init__(self) -> None:
        self._file = TemporaryFile()  # noqa: SIM115 - lives as long as this
        self._sizes: list[int] = []
        self.lanes: set[LaneKey] = set()
        self.linked = False  # whether any has a key, or depends on another

    @classmethod
    def of(cls, tasks: Iterator[TaskSpec]) -> "Spooled":
        spooled = cls()
        while batch := list(islice(tasks, BATCH)):
            spooled.add(batch)
        return spooled

    def add(self, batch: list[TaskSpec]) -> None:
        pickle.dump(batch, self._file, pickle.HIGHEST_PROTOCOL)
        self._sizes.append(len(batch))
        self.lanes |= {lane_key(task.requires, task.slots) for task in batch}
        self.linked = self.linked or any(task.key or task.depends_on for task in batch)

    def __len__(self) -> int:
        return sum(self._sizes)

    def batches(self) -> Iterator[list[TaskSpec]]:
        self._file.seek(0)
        for _ in self._sizes:
            yield pickle.load(self._file)  # noqa: S301 - nobody else can write to it
