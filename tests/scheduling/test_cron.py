"""Cron expressions against published tables (tests/data/cron), and what is ours to decide."""

import csv
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from scheduling.cron import ALIASES, BadCron, BadZone, Cron, zone_of

DATA = Path(__file__).parent.parent / "data" / "cron"
BERLIN = ZoneInfo("Europe/Berlin")


def rows() -> list[dict[str, str]]:
    found = []
    for path in sorted(DATA.glob("*.csv")):
        with path.open(newline="") as table:
            found += [{"source": path.stem, **row} for row in csv.DictReader(table)]
    return found


ROWS = rows()


def outcome(row: dict[str, str]) -> str:
    """What becomes of a row here: a time, `never`, or `refused` with the field's name."""
    try:
        cron = Cron(row["expr"])
    except BadCron as error:
        return f"refused {error.members['field']}"
    moment = datetime.fromisoformat(row["from"]) - timedelta(microseconds=bool(row["inclusive"]))
    zone = zone_of(row["tz"])
    found = next(cron.after(moment, zone), None)
    return found.astimezone(zone).isoformat() if found else "never"


def agrees(found: str, wanted: str) -> bool:
    if wanted.startswith("not "):
        return found not in (wanted.removeprefix("not "), "never") and "refused" not in found
    return found.partition(" ")[0] == wanted if wanted == "refused" else found == wanted


@pytest.mark.parametrize("source", sorted({row["source"] for row in ROWS}))
def test_published_rows(source):
    """As its project has it; where dialects differ, as `ours` says and docs/cron.md tells why."""
    wrong = []
    for row in ROWS:
        if row["source"] != source:
            continue
        found = outcome(row)
        if not (found == row["ours"] if row["ours"] else agrees(found, row["expected"])):
            wrong.append((row, found))

    assert not wrong, wrong[:5]


def test_the_tables_are_large_enough_and_each_difference_has_its_reason():
    agreeing = [row for row in ROWS if not row["ours"]]
    zones = Counter(row["tz"] for row in agreeing)
    said = (DATA.parents[2] / "docs" / "cron.md").read_text()

    assert len(agreeing) >= 400
    assert len({row["source"] for row in ROWS}) >= 4
    assert all(zones[name] >= 20 for name in ("Europe/Berlin", "America/New_York"))
    assert zones["Australia/Lord_Howe"] >= 20
    assert not {row["why"] for row in ROWS if row["ours"] and f"| {row['why']} |" not in said}


# -- where the clock is changed


def times(expression: str, start: str, count: int, zone: ZoneInfo = BERLIN) -> list[str]:
    found = Cron(expression).after(datetime.fromisoformat(start), zone)
    return [f"{time.astimezone(zone):%d %H:%M%z}" for time in islice(found, count)]


def test_a_certain_time_that_the_clock_jumps_over_comes_as_it_lands():
    assert times("30 2 * * *", "2026-03-28T00:00Z", 3) == ["28 02:30+0100", "29 03:00+0200",
                                                          "30 02:30+0200"]  # fmt: skip
    assert times("0,30 2 * * *", "2026-03-29T00:00Z", 2) == ["29 03:00+0200", "30 02:00+0200"]


def test_a_certain_time_that_the_clock_shows_twice_comes_once():
    assert times("30 2 * * *", "2026-10-24T22:00Z", 2) == ["25 02:30+0200", "26 02:30+0100"]
    # From between the two, too, or one that was fired would come again.
    assert times("30 2 * * *", "2026-10-25T00:45Z", 1) == ["26 02:30+0100"]
    assert times("30 2 * * *", "2026-10-25T01:10Z", 1) == ["26 02:30+0100"]


def test_so_and_so_often_goes_by_the_clock_through_its_changes():
    assert times("*/30 * * * *", "2026-03-29T00:00Z", 3) == ["29 01:30+0100", "29 03:00+0200",
                                                            "29 03:30+0200"]  # fmt: skip
    assert times("*/30 * * * *", "2026-10-25T00:00Z", 4) == ["25 02:30+0200", "25 02:00+0100",
                                                            "25 02:30+0100",
                                                            "25 03:00+0100"]  # fmt: skip
    assert times("*/30 * * * *", "2026-10-25T01:00Z", 1) == ["25 02:30+0100"]


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
@pytest.mark.parametrize(
    "expression", ["*/7 * * * *", "30 1,2,3 * * *", "15 */2 * * *", "0 2 * * *"]
)
def test_times_go_up_whatever_they_are_counted_from(zone, expression):
    """Asked from any moment, the next time is the one that a single walk has there."""
    start, tz, cron = datetime(2026, 3, 25, tzinfo=UTC), ZoneInfo(zone), Cron(expression)
    autumn = [datetime(2026, month, day, tzinfo=UTC) for month, day in ((10, 24), (10, 31))]
    for begin in (start, start + timedelta(days=9), *autumn):
        walk = [t for t in islice(cron.after(begin, tz), 700) if t < begin + timedelta(days=3)]
        assert all(a < b for a, b in pairwise(walk))
        for n, time in enumerate(walk[:-1]):
            assert next(cron.after(time, tz)) == walk[n + 1]
            middle = time + (walk[n + 1] - time) / 2
            assert next(cron.after(middle, tz)) == walk[n + 1]


# -- what is refused, and what it is called


@pytest.mark.parametrize(
    ("expression", "field"),
    [
        ("61 * * * *", "minute"),
        ("* 24 * * *", "hour"),
        ("* * 0 * *", "day-of-month"),
        ("* * 31 2 *", "day-of-month"),
        ("* * 15W * *", "day-of-month"),
        ("* * * 13 *", "month"),
        ("* * * * 8", "day-of-week"),
        ("* * * * FRI-MON", "day-of-week"),
        ("22-2 * * * *", "minute"),
        ("? * * * *", "minute"),
        ("* * * * * *", "expression"),
        ("* * * *", "expression"),
        ("@every 5m", "expression"),
        ("@reboot", "expression"),
        ("", "expression"),
        ("1," * 200 + "1 * * * *", "expression"),
    ],
)
def test_a_bad_expression_names_the_field(expression, field):
    with pytest.raises(BadCron) as refused:
        Cron(expression)
    assert refused.value.members == {"field": field}
    assert refused.value.detail.startswith(f"{field}: ")


@pytest.mark.parametrize(
    "name", ["Mars/Olympus", "", "../etc/passwd", "/etc/localtime", "Europe", "a\0"]
)
def test_a_bad_zone_is_refused(name):
    with pytest.raises(BadZone):
        zone_of(name)


@pytest.mark.parametrize("alias", ALIASES)
def test_every_alias_is_explained(alias):
    assert Cron(f" {alias.upper()} ").explain()


def test_what_never_comes_ends():
    assert list(Cron("1 1 */100 * MON#4").after(datetime(2026, 1, 1, tzinfo=UTC), BERLIN)) == []
    assert (
        list(islice(Cron("@yearly").after(datetime(9998, 6, 1, tzinfo=UTC), BERLIN), 5))[1:] == []
    )


def test_every_expression_of_the_tables_can_be_said_in_words():
    for row in ROWS:
        if outcome(row).startswith("refused"):
            continue
        assert Cron(row["expr"]).explain(), row
