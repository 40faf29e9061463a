from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from jobs.specs import Candidate
from scheduling.policies import Ageing, Fifo, Priority

SECOND = 1_000_000
candidates = st.builds(
    Candidate,
    priority=st.integers(-100, 100),
    available_at_us=st.integers(0, 4_000_000_000 * SECOND),
    queue=st.just("default"),
    name=st.just(""),
    kind=st.just("shell"),
)


@given(candidates, candidates)
def test_strict_priority_outweighs_any_age(a, b):
    # Thirty years are less than the 10^9 seconds that a step of priority outweighs.
    b = replace(b, available_at_us=a.available_at_us + 30 * 365 * 86_400 * SECOND)
    if a.priority < b.priority:
        assert Priority().score(b) < Priority().score(a)
    else:
        assert Priority().score(a) < Priority().score(b)


@given(candidates, candidates)
def test_fifo_looks_at_age_alone(a, b):
    assert (Fifo().score(a) < Fifo().score(b)) == (a.available_at_us < b.available_at_us)


@given(candidates, st.integers(-100, 100), st.integers(1, 10**9))
def test_ageing_bounds_how_long_anything_waits(task, priority, later_us):
    """Nothing of priority q submitted after t + A (q - p) goes before (p, t)."""
    bound_us = Ageing.seconds_per_priority * SECOND * (priority - task.priority)
    other = replace(
        task, priority=priority, available_at_us=task.available_at_us + bound_us + later_us
    )
    assert Ageing().score(task) < Ageing().score(other)


@given(candidates)
def test_scores_fit_a_bigint(task):
    assert abs(Priority().score(task)) < 2**62
