"""The marks that executed tasks leave, so that nobody's own counters are trusted."""

import struct
from pathlib import Path

RECORD = struct.Struct("dd")


class Marks:
    """Records of (start, submit) in seconds since the epoch; submit is 0 where nobody asked."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def clear(self) -> None:
        self.path.write_bytes(b"")  # the same file: workers have it open

    def count(self) -> int:
        return self.path.stat().st_size // RECORD.size if self.path.exists() else 0

    def first_at(self) -> float | None:
        """When the first task started."""
        if not self.count():
            return None
        with self.path.open("rb") as file:
            return float(RECORD.unpack(file.read(RECORD.size))[0])

    def read(self) -> list[tuple[float, float]]:
        data = self.path.read_bytes()
        return list(RECORD.iter_unpack(data[: len(data) // RECORD.size * RECORD.size]))

    def waits_ms(self) -> list[float]:
        """From submit to start, of the tasks that tell when they were submitted."""
        return [1000 * (start - submit) for start, submit in self.read() if submit]

    def rate(self, since: float, until: float) -> float:
        """Tasks a second that started in this stretch of time."""
        started = sum(1 for start, _ in self.read() if since <= start < until)
        return started / (until - since)
