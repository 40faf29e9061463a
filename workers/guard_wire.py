"""Frames between a worker's agent and its guard.

A frame is a length (4 bytes, big-endian) and a dict in that many bytes of `marshal`: both ends
are one version of Python, and it costs a third of JSON. File
descriptors travel with a frame's first byte (SCM_RIGHTS), so they never arrive after it.

Agent to guard, by `verb`: `spawn` (with 3 or 4 descriptors), `kill`, `lease`.
Guard to agent: one `ended` object for every spawn, once its whole process tree is dead; and
{"lease": until} for every lease, by which the agent knows that its guard is well.
"""

import marshal
import struct
import time
from collections.abc import Iterator
from typing import Any

_LENGTH = struct.Struct("!I")
# Outside Linux there is no clock that counts through a suspend.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boottime() -> float:
    """Seconds since the machine started, time asleep included: the clock of leases here."""
    return time.clock_gettime(_CLOCK)


def encode(message: dict[str, Any]) -> bytes:
    """One frame. Lone surrogates (undecodable bytes of an argument) survive."""
    body = marshal.dumps(message)
    return _LENGTH.pack(len(body)) + body


class Decoder:
    """Turns a stream of bytes back into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """Yields every message that `data` completes, in order."""
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._buffer)[0]
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            yield marshal.loads(body)  # noqa: S302 - nobody else has an end of this socket
