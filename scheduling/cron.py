"""When a cron expression's times come, in a time zone. docs/cron.md tells the dialect.

cronsim reads the expression and walks the clock on the wall; what the wall's times mean where that
clock is changed is decided here, as Debian's cron has it. (cronsim's own walk through such a change
loses a time where the clock moves by half an hour.)
"""

from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from dtsproject.errors import Refusal

LONGEST = 200
ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
TAKES = {
    "minute": "0-59",
    "hour": "0-23",
    "day-of-month": "1-31, L or LW, days that its month has",
    "month": "1-12 or JAN-DEC",
    "day-of-week": "0-7 or SUN-SAT (0 and 7 are Sunday), 5L or MON#2",
}
DAY_OF_MONTH, DAY_OF_WEEK = 2, 4
MINUTE = timedelta(minutes=1)
# No clock is put back by more.
LARGEST_CHANGE = timedelta(hours=3)


class BadCron(Refusal):
    """`field` names the part of the expression that is wrong."""

    status, code, title = 400, "invalid_cron", "The cron expression is not valid"

    def __init__(self, field: str, fault: str) -> None:
        super().__init__(f"{field}: {fault}", field=field)


class BadZone(Refusal):
    status, code, title = 400, "invalid_time_zone", "There is no such time zone"


def zone_of(name: str) -> ZoneInfo:
    """The IANA time zone of this name. Raises BadZone."""
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, LookupError):  # a path, a folder, unknown
        raise BadZone(
            f"There is no time zone {name[:80]!r}; give one such as Europe/Berlin"
        ) from None


class Cron:
    def __init__(self, text: str) -> None:
        """Raises BadCron."""
        fields = _fields(text)
        self.expression = " ".join(fields)
        # With a star for its minutes or hours it means so and so often; without, certain times.
        self.certain = not fields[0].startswith("*") and not fields[1].startswith("*")
        try:
            self._words = CronSim(self.expression, datetime.min)
        except CronSimError as error:
            name = str(error).removeprefix("Bad ")
            given = fields[list(TAKES).index(name)]
            raise BadCron(name, f"{given!r} is not valid; it takes {TAKES[name]}") from None

    def after(self, moment: datetime, zone: ZoneInfo) -> Iterator[datetime]:
        """The times later than `moment`, in UTC and in order, until none comes in 50 years."""
        try:
            for time in self._times(moment, zone):
                if time > moment:
                    moment = time
                    yield time
        except OverflowError:  # the calendar's end
            return

    def explain(self) -> str:
        """The expression in words."""
        return self._words.explain()

    def _times(self, moment: datetime, zone: ZoneInfo) -> Iterator[datetime]:
        again: deque[datetime] = deque()
        for wall in CronSim(self.expression, _wall_before(moment, zone)):
            first, second = _readings(wall, zone)
            while again and again[0] < first:
                yield again.popleft()
            if first > second:  # the clock jumps over it
                if self.certain:
                    yield _end_of_gap(wall, zone)
                continue
            yield first
            if second > first and not self.certain:
                again.append(second)
        yield from again


def _fields(text: str) -> list[str]:
    if len(text) > LONGEST:
        raise BadCron("expression", f"it is longer than {LONGEST} characters")
    given = text.strip()
    if given.startswith("@"):
        if given.lower() not in ALIASES:
            raise BadCron("expression", f"there is no {given!r}; there are {', '.join(ALIASES)}")
        given = ALIASES[given.lower()]
    fields = given.upper().split()
    if len(fields) != len(TAKES):
        raise BadCron("expression", f"give five fields ({', '.join(TAKES)}), not {len(fields)}")
    for n in (DAY_OF_MONTH, DAY_OF_WEEK):
        fields[n] = "*" if fields[n] == "?" else fields[n]
    # cronsim's SUN is 0, before which no range ends.
    fields[DAY_OF_WEEK] = fields[DAY_OF_WEEK].replace("-SUN", "-7")
    return fields


def _wall_before(moment: datetime, zone: ZoneInfo) -> datetime:
    """Where to begin so as to find whatever comes after `moment`: what the clock shows then, or
    earlier near a change of it, which may show times again."""
    before, after = (
        (moment + change).astimezone(zone).utcoffset()
        for change in (-LARGEST_CHANGE, LARGEST_CHANGE)
    )
    wall = moment.astimezone(zone).replace(tzinfo=None)
    return wall if before == after else wall - LARGEST_CHANGE


def _readings(wall: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """What the wall's time is before and after a change of the clock; alike where there is none,
    and in reverse order where the clock never shows it."""
    first, second = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    return first, second


def _end_of_gap(wall: datetime, zone: ZoneInfo) -> datetime:
    first, second = _readings(wall, zone)
    while first > second:
        wall += MINUTE
        first, second = _readings(wall, zone)
    return first
