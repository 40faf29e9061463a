"""gunicorn as DTS configures it, with far more clients than threads, on a database that is slow."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from jobs.delay import MOST_AT_ONCE
from tests.chaos.installation import Installation
from tests.helpers import wait_until

CLIENTS = 100
JOB = {"name": "n", "tasks": [{"payload": {"cmd": "true"}}]}


@pytest.fixture
def dts():
    made = Installation(DTS_MAX_DATABASE_DELAY_SECONDS="2")
    try:
        made.cluster.start_child()
        made.migrate()
        made.api()
        yield made
    finally:
        made.end()


def test_submits_are_refused_and_all_else_is_answered(dts):
    with (
        ThreadPoolExecutor(CLIENTS) as pool,
        psycopg.connect(dts.environment["DATABASE_URL"]) as locking,
    ):
        locking.execute("LOCK TABLE waiting")
        asked = [pool.submit(dts.ask, "/api/v1/jobs", JOB) for _ in range(CLIENTS)]
        wait_until(lambda: sum(it.done() for it in asked) == CLIENTS - MOST_AT_ONCE, 12)
        for path in ("/healthz", "/api/v1/workers"):
            assert dts.ask(path)[0] == 200
    answers = [it.result() for it in asked]

    assert Counter(status for status, *_ in answers) == {
        201: MOST_AT_ONCE,
        429: CLIENTS - MOST_AT_ONCE,
    }
    for status, headers, body in answers:
        if status == 429:
            assert json.loads(body)["code"] == "overloaded"
            assert int(headers["Retry-After"]) > 0
    assert dts.rows("SELECT count(*) FROM tasks") == [(MOST_AT_ONCE,)]
    wait_until(lambda: dts.submit("true"))
