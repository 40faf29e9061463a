"""Which times a schedule has, at a moment that the test says."""

from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest

from scheduling import plan
from scheduling.models import Schedule

SECOND = timedelta(seconds=1)


def schedule(cron: str = "0 * * * *", **values) -> Schedule:
    return Schedule(pk=7, name="s", cron=cron, **values)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def times(found) -> list[str]:
    return [f"{moment.scheduled_at:%d %H:%M}" for moment in found]


def test_times_are_within_start_and_end():
    limited = schedule(starts_at=at("2026-01-01T10:00Z"), ends_at=at("2026-01-01T12:00Z"))
    assert times(plan.moments(limited, at("2026-01-01T00:00Z"))) == [
        "01 10:00",
        "01 11:00",
        "01 12:00",
    ]
    assert plan.first_after(limited, at("2026-01-01T12:00Z")) is None


def test_jitter_is_bounded_the_same_for_everybody_and_keeps_its_order():
    """Also where it is longer than the time between two runs."""
    some = schedule("* * * * *", jitter_seconds=300)
    start = at("2026-01-01T00:00Z")
    found = list(islice(plan.moments(some, start), 200))
    assert [m.at for m in found] == sorted(m.at for m in found)
    assert all(m.scheduled_at <= m.at < m.scheduled_at + 300 * SECOND for m in found)
    assert len({m.scheduled_at for m in found}) == 200
    assert max(m.at - m.scheduled_at for m in found) > 200 * SECOND
    for n in (0, 50, 150):  # from anywhere, what follows is the same
        assert list(islice(plan.moments(some, found[n].at), 20)) == found[n + 1 : n + 21]
    assert schedule().pk == some.pk
    assert plan.jitter(Schedule(pk=8, jitter_seconds=300), start) != plan.jitter(some, start)


@pytest.mark.parametrize(
    ("catch_up", "made", "next_at", "let_go"),
    [
        ("none", None, "2026-01-01T13:00Z", 3),
        ("one", "01 12:00", "2026-01-01T13:00Z", 2),
        ("all", "01 10:00", "2026-01-01T11:00Z", 0),
    ],
)
def test_times_that_were_missed_follow_the_catch_up(catch_up, made, next_at, let_go):
    found = plan.due(schedule(catch_up=catch_up), at("2026-01-01T10:00Z"), at("2026-01-01T12:30Z"))
    assert times([found.moment] if found.moment else []) == ([made] if made else [])
    assert (found.next_run_at, found.let_go) == (at(next_at), let_go)


@pytest.mark.parametrize("catch_up", ["none", "one", "all"])
def test_a_time_that_is_hardly_late_was_not_missed(catch_up):
    since = at("2026-01-01T10:00Z")
    found = plan.due(schedule(catch_up=catch_up), since, since + 2 * SECOND)
    assert (times([found.moment]), found.next_run_at, found.let_go) == (
        ["01 10:00"],
        at("2026-01-01T11:00Z"),
        0,
    )


def test_catching_up_with_all_has_a_limit_and_a_year_of_minutes_costs_no_year():
    some = schedule("* * * * *", catch_up="all", catch_up_limit=3)
    found = plan.due(some, at("2025-01-01T00:00Z"), at("2026-01-01T00:00:30Z"))
    assert times([found.moment]) == ["31 23:58"]
    assert (found.next_run_at, found.let_go) == (at("2025-12-31T23:59Z"), 1)


def test_a_next_time_that_is_no_time_of_the_cron_makes_none():
    found = plan.due(schedule(catch_up="all"), at("2026-01-01T10:20Z"), at("2026-01-01T10:40Z"))
    assert found == (None, at("2026-01-01T11:00Z"), 0)


def test_a_time_that_the_clock_jumps_over_is_made_as_it_lands_and_once():
    berlin = schedule("30 2 * * *", time_zone="Europe/Berlin", catch_up="all")
    assert plan.first_after(berlin, at("2026-03-28T12:00Z")) == at("2026-03-29T01:00Z")
    found = plan.due(berlin, at("2026-03-29T01:00Z"), at("2026-03-29T01:00:01Z"))
    assert (found.moment.scheduled_at, found.next_run_at) == (
        at("2026-03-29T01:00Z"),
        at("2026-03-30T00:30Z"),
    )
    found = plan.due(berlin, at("2026-10-25T00:30Z"), at("2026-10-25T03:00Z"))
    assert (found.moment.scheduled_at, found.next_run_at) == (
        at("2026-10-25T00:30Z"),
        at("2026-10-26T01:30Z"),
    )
