"""What could not be delivered, on disk until it is: endings and output of a worker cut off.

Written only while the server is out of reach. The next boot of the worker's name on its machine
delivers what a killed one left. One JSON array a line; one that was torn by a death is no array.
"""

import base64
import contextlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

import structlog

from jobs.specs import Ending, LogPart

log = structlog.get_logger(__name__)

Record = Ending | LogPart
MOST_BYTES = 64 * 1024 * 1024
# Output may fill a part of it only, so that there is room left for how tasks ended.
MOST_BYTES_OF_OUTPUT = MOST_BYTES // 2


class Spool:
    """Never raises OSError: where the disk fails, what is kept stays in its owner's memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._kept: set[tuple] = set()
        self._warned = False

    def keep(self, records: Iterable[Record]) -> None:
        """Writes those of the records that it does not have."""
        new = {_key(record): record for record in records if _key(record) not in self._kept}
        if not new:
            return
        size = 0
        try:
            with open(self.path, "ab", opener=_private) as file:
                size = file.tell()
                for key, record in new.items():
                    line = _encode(record)
                    most = MOST_BYTES if isinstance(record, Ending) else MOST_BYTES_OF_OUTPUT
                    if file.tell() + len(line) <= most:
                        file.write(line)
                        self._kept.add(key)
                    else:
                        self._warn(f"it has {most} bytes")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            self._kept -= new.keys()
            self._warn(error.strerror)
            with contextlib.suppress(OSError):
                os.truncate(self.path, size)

    def delivered(self, records: Iterable[Record]) -> None:
        """Forgets records; the file goes with the last one."""
        if not self._kept:
            return
        self._kept.difference_update(map(_key, records))
        if not self._kept:
            self._warned = False
            with contextlib.suppress(OSError):  # delivered once more, it is answered as before
                self.path.unlink(missing_ok=True)

    def read(self) -> tuple[list[Ending], list[LogPart]]:
        """What a former boot left."""
        try:
            lines = self.path.read_bytes().splitlines() if self.path.exists() else []
        except OSError as error:
            self._warn(error.strerror)
            lines = []
        found = {_key(record): record for line in lines if (record := _decode(line))}
        self._kept.update(found)
        return (
            [record for record in found.values() if isinstance(record, Ending)],
            [record for record in found.values() if isinstance(record, LogPart)],
        )

    def _warn(self, reason: str | None) -> None:
        if not self._warned:
            self._warned = True
            log.warning("spool_fails_results_stay_in_memory", path=str(self.path), reason=reason)


def _key(record: Record) -> tuple:
    """The attempt, and of output the stream and where it starts."""
    return record[:2] if isinstance(record, Ending) else record[:4]


def _encode(record: Record) -> bytes:
    """A line that begins with its newline: what follows a torn one still begins a line."""
    fields = list(record)
    if isinstance(record, LogPart):
        fields[-1] = base64.b64encode(record.data).decode()
    return b"\n" + json.dumps(fields).encode()


def _decode(line: bytes) -> Record | None:
    try:
        fields = json.loads(line)
        if len(fields) == len(Ending._fields):
            return Ending._make(fields)
        return LogPart._make([*fields[:-1], base64.b64decode(fields[-1])])
    except (ValueError, TypeError):
        return None


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
