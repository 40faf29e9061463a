"""A heartbeat whose answer the server puts off until there is work (workers/waiting.py)."""

import random
import time
from collections.abc import Mapping
from typing import Any

from dtsproject.conf import conf
from dtsproject.errors import Unreachable
from workers.guard_wire import boottime
from workers.transports.link import Link

MOST_SECONDS = 25.0
# Of the time for which the heartbeat renews; the rest is for what is claimed when it is answered.
PART = 0.7
# Later than asked for: the server or something before it does not answer at all.
LATE_SECONDS = 5.0
# What cannot put off its answer, or not now, is left alone for so long.
REST_SECONDS = 5.0


class Wait:
    """Used by one thread; `is_on` may be asked by any."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.is_on = False
        self.asked_at = 0.0
        self._answered = False
        self._overdue_at = 0.0
        self._rest_until = 0.0

    def begin(self, path: str, body: Mapping[str, Any]) -> None:
        """Asks, unless it waits already. Raises Unreachable, also where no answer came in time."""
        now = time.monotonic()
        if self.is_on and not self._answered and now > self._overdue_at:
            self.end()
            raise Unreachable(f"{self.link.server} has not answered in time")
        most = min(MOST_SECONDS, PART * (0.9 * conf().lease_seconds - conf().kill_grace_seconds))
        if self.is_on or now < self._rest_until or most < conf().worker_poll_seconds:
            return
        seconds = most * random.uniform(0.8, 1.0)  # noqa: S311 - so that not all come at once
        body = {**body, "held": []}
        if self.link.connect() and self.link.server.startswith("https:"):
            # What TLS itself sends at first would look like an answer: this takes it off the line.
            self.link.post(path, body)
        self.asked_at = boottime()
        self.link.send(path, {**body, "wait_seconds": seconds})
        self._overdue_at = now + seconds + min(LATE_SECONDS, conf().lease_seconds / 6)
        self.is_on = True

    def fileno(self) -> int | None:
        """The line's descriptor, until its answer was noticed."""
        return self.link.fileno() if self.is_on and not self._answered else None

    def notice(self) -> None:
        self._answered = True

    def seconds(self) -> float | None:
        """How long the answer may still take, where one is awaited."""
        return max(0.0, self._overdue_at - time.monotonic()) if self.is_on else None

    def take(self) -> Any:
        """The answer that was noticed, once. Raises as `Link.receive` does."""
        if not self._answered:
            return None
        self.is_on = self._answered = False
        answer = self.link.receive(LATE_SECONDS)
        if answer["ready"] is None:
            self._rest_until = time.monotonic() + REST_SECONDS
        return answer

    def end(self) -> None:
        self.is_on = self._answered = False
        self.link.close()
