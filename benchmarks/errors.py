"""What can go wrong in a benchmark, told in one line."""


class BenchError(Exception):
    """The benchmark cannot run; the message says how to mend it."""


class PeerFailed(BenchError):
    """A peer could not be measured; it is left out by name."""
