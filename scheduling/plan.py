"""Which times a schedule has: to come, due, missed. Pure; whoever asks says what time it is."""

import hashlib
from collections import deque
from collections.abc import Iterator
from datetime import datetime, timedelta
from heapq import heappop, heappush
from itertools import takewhile
from typing import NamedTuple

from scheduling.cron import Cron, zone_of
from scheduling.models import CatchUp, Schedule

# Later than this, a time was missed: schedulers were away, or could not.
LATE = timedelta(seconds=5)
INSTANT = timedelta(microseconds=1)
# How far to look back for the latest times that were missed, step by step.
SPANS = [timedelta(hours=1), timedelta(days=1), timedelta(days=32), timedelta(days=800)]


class Moment(NamedTuple):
    """`at` is when to fire for the cron's time `scheduled_at`: a jitter later."""

    at: datetime
    scheduled_at: datetime


class Due(NamedTuple):
    """What to make now, if anything; when to look again (None: never); how many times are let go
    (of more than catch_up_limit, at least that many)."""

    moment: Moment | None
    next_run_at: datetime | None
    let_go: int


def moments(schedule: Schedule, after: datetime) -> Iterator[Moment]:
    """What comes after `after`, in order of `at`. Raises BadCron and BadZone."""
    cron, zone = Cron(schedule.cron), zone_of(schedule.time_zone)
    start = after - timedelta(seconds=schedule.jitter_seconds)
    if schedule.starts_at:
        start = max(start, schedule.starts_at - INSTANT)
    ahead: list[Moment] = []
    for time in cron.after(start, zone):
        if schedule.ends_at and time > schedule.ends_at:
            break
        while ahead and ahead[0].at <= time:
            yield heappop(ahead)
        moment = Moment(time + jitter(schedule, time), time)
        if moment.at == time:
            yield moment  # nothing that is still to be found can come before it
        elif moment.at > after:
            heappush(ahead, moment)
    while ahead:
        yield heappop(ahead)


def jitter(schedule: Schedule, time: datetime) -> timedelta:
    """The same for the same schedule and time, whoever asks; less than jitter_seconds."""
    if not schedule.jitter_seconds:
        return timedelta()
    digest = hashlib.sha256(f"{schedule.pk} {time.timestamp()}".encode()).digest()
    part = int.from_bytes(digest[:8], "big") / 2**64
    return timedelta(seconds=part * schedule.jitter_seconds)


def first_after(schedule: Schedule, moment: datetime) -> datetime | None:
    """When it is to fire next; None if never again. Raises BadCron and BadZone."""
    return next((found.at for found in moments(schedule, moment)), None)


def due(schedule: Schedule, since: datetime, now: datetime) -> Due:
    """What the schedule's catch-up makes of its times from `since`, its next_run_at, to now.

    One at a time: where there are more to make, the next of them is when to look again, and due.
    """
    passed, more = _passed(schedule, since - INSTANT, now)
    late = sum(moment.at <= now - LATE for moment in passed)
    if schedule.catch_up == CatchUp.NONE:
        left = passed[late:]
    elif schedule.catch_up == CatchUp.ONE and late:
        left = passed[-1:]
    else:
        left = passed
    let_go = more + len(passed) - len(left)
    if len(left) > 1:
        return Due(left[0], left[1].at, let_go)
    return Due(left[0] if left else None, first_after(schedule, now), let_go)


def _passed(schedule: Schedule, since: datetime, now: datetime) -> tuple[list[Moment], int]:
    """The latest times after `since` up to now, at most catch_up_limit, and whether there were
    more (1 or 0: the minutes of a year are not counted)."""
    limit = schedule.catch_up_limit
    found: deque[Moment] = deque(maxlen=limit + 1)
    for span in [*SPANS, now - since]:
        start = max(since, now - span)
        found.clear()
        found.extend(takewhile(lambda moment: moment.at <= now, moments(schedule, start)))
        if len(found) > limit or start == since:
            break
    return list(found)[-limit:], int(len(found) > limit)
