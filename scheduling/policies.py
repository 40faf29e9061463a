"""Which waiting task comes first: one small pure class, named by the setting POLICY.

A policy gives each task one number when it is submitted, its score; the lowest is promoted
first, ties go to the lower job id, then the lower task id. As time passes every score ages alike,
so an index can hold the order and nothing is recomputed.
"""

from typing import Protocol

from jobs.specs import Candidate


class Policy(Protocol):
    def score(self, task: Candidate) -> int:
        """A number below 2^62 in magnitude; lower comes first. Reads nothing but `task`."""


class Ageing:
    """Higher priority first, but no task waits for ever: `seconds_per_priority` seconds of
    waiting outweigh one step of priority.

    `available_at - A * priority` orders tasks as `priority + wait / A` does at any moment.
    """

    seconds_per_priority = 60

    def score(self, task: Candidate) -> int:
        return task.available_at_us - self.seconds_per_priority * 1_000_000 * task.priority


class Priority(Ageing):
    """Strictly: higher priority first, then older first, then job id.

    A step of priority outweighs 30 years of waiting.
    """

    seconds_per_priority = 1_000_000_000


class Fifo(Ageing):
    """Older first, whatever the priority."""

    seconds_per_priority = 0
