"""Submits are refused while the database is slow: here, while another session locks a table."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection, connections, transaction

from jobs import delay as module
from jobs.delay import MOST_AT_ONCE, Delay
from jobs.models import Job
from tests.api import JOB, Client, problem
from tests.helpers import wait_until

pytestmark = pytest.mark.django_db(transaction=True)
LIMIT_SECONDS = 1.0


@pytest.fixture(autouse=True)
def delay(settings, monkeypatch):
    """A process's own, just started."""
    settings.DTS = {**settings.DTS, "MAX_DATABASE_DELAY_SECONDS": LIMIT_SECONDS}
    monkeypatch.setattr(module, "PROBE_SECONDS", 2.0)
    fresh = Delay()
    monkeypatch.setattr("jobs.api.jobs.delay", fresh)
    return fresh


@pytest.fixture
def submit():
    client = Client("submit")
    return lambda: client.send("/api/v1/jobs", JOB)


def elsewhere(call):
    try:
        return call()
    finally:
        connections.close_all()


def assert_refused(response):
    assert "DTS_MAX_DATABASE_DELAY_SECONDS" in problem(response, 429, "overloaded")["detail"]
    assert int(response["Retry-After"]) > 0


def test_what_comes_while_others_wait_too_long_is_refused_until_one_is_stored_in_time(submit):
    with ThreadPoolExecutor(MOST_AT_ONCE + 2) as pool:
        with transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("LOCK TABLE waiting")
            waiting = [pool.submit(elsewhere, submit) for _ in range(MOST_AT_ONCE + 2)]
            wait_until(lambda: sum(it.done() for it in waiting) == 2)
            for it in waiting:
                if it.done():
                    assert_refused(it.result())
            assert_refused(pool.submit(elsewhere, submit).result())

        statuses = [it.result().status_code for it in waiting]
    assert sorted(statuses) == [201] * MOST_AT_ONCE + [429] * 2
    assert_refused(submit())
    time.sleep(module.PROBE_SECONDS)
    assert [submit().status_code for _ in range(3)] == [201] * 3
    assert Job.objects.count() == MOST_AT_ONCE + 3


def test_while_it_is_slow_one_at_a_time_tries(delay, submit):
    with delay.limited(1):
        time.sleep(LIMIT_SECONDS * 1.1)
        assert_refused(submit())
    time.sleep(module.PROBE_SECONDS)

    with delay.limited(1):
        assert_refused(submit())
    assert submit().status_code == 201


def test_one_that_waits_alone_costs_the_others_nothing(delay, submit):
    with delay.limited(1):
        until = time.monotonic() + 2 * LIMIT_SECONDS
        while time.monotonic() < until:
            assert submit().status_code == 201


def test_a_large_job_has_more_time(delay, submit):
    with delay.limited(module.BATCH + 1):
        time.sleep(LIMIT_SECONDS * 1.1)

    assert submit().status_code == 201
