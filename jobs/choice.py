"""Promotion where there are limits: which of what could go may go.

What is over the limit of its key is put aside, once, in the line of that key: a row of `blocked`,
from which it goes when there is room. A queue's limit is room that its lanes share: what is over it
stays where it is.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

Key = tuple[int, ...]


class Contender(NamedTuple):
    """A task that could be queued, as jobs/sql/candidates.sql says: from `waiting`, or from a line.

    `key` is None unless it has a limit; `room` and `tokens` are what that has left, None for any.
    `paid` is a task that was queued before and not claimed: the rate has counted it.
    """

    score: int
    job_id: int
    task_id: int
    lane: int
    waits: bool
    queue: str
    queue_room: int | None
    key: str | None
    room: int | None
    tokens: float | None
    paid: bool
    at: datetime


class Room:
    """What lanes, queues and keys have left."""

    def __init__(self, lanes: Mapping[int, int], contenders: Sequence[Contender]) -> None:
        self.left: dict[Hashable, int] = {("lane", lane): room for lane, room in lanes.items()}
        self.tokens: dict[str, float] = {}
        for c in contenders:
            if c.queue_room is not None:
                self.left["queue", c.queue] = c.queue_room
            if c.key and c.room is not None:
                self.left["key", c.key] = c.room
            if c.key and c.tokens is not None:
                self.tokens[c.key] = c.tokens

    def within_limit(self, c: Contender) -> bool:
        has_token = c.paid or self.tokens.get(c.key or "", 1) >= 1
        return has_token and self.left.get(("key", c.key), 1) > 0

    def has_place(self, c: Contender) -> bool:
        return self.left["lane", c.lane] > 0 and self.left.get(("queue", c.queue), 1) > 0

    def take(self, c: Contender) -> None:
        for what in (("lane", c.lane), ("queue", c.queue), ("key", c.key)):
            if what in self.left:
                self.left[what] -= 1
        if c.key in self.tokens and not c.paid:
            self.tokens[c.key] -= 1


@dataclass
class Choice:
    """What goes, in order, and what is put aside; up to where the heads of each lane were taken,
    without a gap; and what is left of the rates that were used."""

    go: list[Contender] = field(default_factory=list)
    aside: list[Contender] = field(default_factory=list)
    reached: dict[int, Key] = field(default_factory=dict)
    tokens: dict[str, float] = field(default_factory=dict)


def choose(contenders: Sequence[Contender], lanes: Mapping[int, int], batch: int) -> Choice:
    """The most urgent first, as far as their lane (`lanes`: its room), queue and key have room.

    What is over its key's limit is put aside only where it is in the way: while there is a place
    that something behind it could have.
    """
    choice, room = Choice(), Room(lanes, contenders)
    gaps: set[int] = set()
    for c in _eligible(contenders, choice):
        if len(choice.go) == batch:
            break
        if not room.has_place(c):
            gaps.add(c.lane)
        elif room.within_limit(c):
            room.take(c)
            choice.go.append(c)
        elif c.waits:
            choice.aside.append(c)
        if c.waits and c.lane not in gaps:
            choice.reached[c.lane] = c[:3]
    rated = {c.key for c in choice.go if c.key and not c.paid}
    choice.tokens = {key: left for key, left in room.tokens.items() if key in rated}
    return choice


def _eligible(contenders: Sequence[Contender], choice: Choice) -> Iterator[Contender]:
    """In order. Where a head was put aside, none from a line that comes after the last head of the
    lane: what waits behind that may be more urgent."""
    in_order = sorted(contenders)
    last = {c.lane: c for c in in_order if c.waits}
    for c in in_order:
        if c.waits or c <= last.get(c.lane, c) or all(a.lane != c.lane for a in choice.aside):
            yield c
