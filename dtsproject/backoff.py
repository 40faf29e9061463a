"""How long to wait before the next try at something that is away."""

import random

FIRST_SECONDS, LONGEST_SECONDS = 0.1, 5.0


class Backoff:
    """Doubles from try to try, give or take a half, so that many who wait come one by one."""

    def __init__(self, longest_seconds: float = LONGEST_SECONDS) -> None:
        self.longest_seconds = longest_seconds
        self.reset()

    def reset(self) -> None:
        self._seconds = FIRST_SECONDS

    def next(self, asked_seconds: float = 0.0) -> float:
        """Seconds to wait: as many as the other side asked for at least, up to the longest."""
        seconds = self._seconds * random.uniform(0.5, 1.5)  # noqa: S311 - jitter, no secret
        self._seconds = min(2 * self._seconds, self.longest_seconds)
        asked = min(asked_seconds, self.longest_seconds)
        return max(seconds, asked * random.uniform(1.0, 1.5))  # noqa: S311 - the same
