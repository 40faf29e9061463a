"""Keeps what a task prints: enough for people, never more than fits.

Of each stream the first `log_limit_bytes` go to the log as they come; of what follows only the
end is kept, and sent when the stream is over. A reader sees the gap by the offsets.
"""

from dtsproject.conf import conf

TAIL_BYTES = 64 * 1024
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"  # for NUL, which PostgreSQL's text cannot hold


class Capture:
    def __init__(self) -> None:
        self.total = 0
        self.head_limit = conf().log_limit_bytes
        self.tail = bytearray()
        self._unsent = bytearray()
        self._unsent_start = 0

    def feed(self, data: bytes) -> None:
        room = max(0, self.head_limit - self.total)
        self._unsent += data[:room]
        self.total += len(data)
        self.tail += data
        if len(self.tail) > TAIL_BYTES:
            del self.tail[:-TAIL_BYTES]

    def take(self, *, over: bool = False) -> list[tuple[int, bytes]]:
        """What is not logged yet, as (offset, bytes); with `over`, the kept end too."""
        parts = []
        if self._unsent:
            parts.append((self._unsent_start, bytes(self._unsent)))
            self._unsent_start += len(self._unsent)
            self._unsent.clear()
        if over and self.total > self._unsent_start:
            length = min(self.total - self._unsent_start, len(self.tail))
            parts.append((self.total - length, bytes(self.tail[-length:])))
            self._unsent_start = self.total
        return parts

    def text(self) -> str:
        """The end of the stream as text that PostgreSQL can hold (no NUL)."""
        limit = conf().result_limit_bytes
        tail = self.tail[-limit:].decode(errors="replace").replace("\0", REPLACEMENT)
        cut = self.total - min(limit, len(self.tail))
        return f"[... {cut} bytes left out]\n{tail}" if cut > 0 else tail
