"""What is kept of a statement must not cost more than it saves: a plan made while a table was empty
must not read all of it once it is full, and no text may be too long to be kept."""

import math
import time

import pytest
from django.conf import settings
from django.db import connection, transaction
from psycopg._queries import MAX_CACHED_STATEMENT_LENGTH

from jobs import queue, statements
from jobs.specs import Ending
from tests.helpers import claim, register, submit

pytestmark = pytest.mark.django_db(transaction=True)

ROWS = 2_000
LEASES = """
INSERT INTO leases (task_id, worker_id, fencing_token, retry_count, max_retries, loss_count,
    lane_id, seq, score, job_id)
    SELECT n, 1, 1, 0, 0, 0, 1, n, n, 1 FROM generate_series(1, %s) n
"""
TASKS = """
INSERT INTO tasks (id, job_id, name, queue, kind, payload, priority, requires, max_retries, lane_id,
    score, status, generation, attempt, fencing_token, retry_count, loss_count, result_text,
    assigned_worker_id, started_at)
    SELECT n, 1, '', 'default', 'shell', '{}', 0, '{}', 0, 1, 0, 'in_progress', 1, 1, 1, 0, 0, '',
        1, now()
    FROM generate_series(1, %s) n
"""
READ = "SELECT idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = %s"


@pytest.fixture
def filled():
    """Has the statement that ends attempts planned on empty tables, which then are full."""
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE leases, tasks")
        queue.report([Ending(1, 1)])
        cursor.execute(LEASES, [ROWS])
        cursor.execute(TASKS, [ROWS])


def read_to_end_one(table: str) -> int:
    """How many rows of the table it read."""
    with transaction.atomic(), connection.cursor() as cursor:
        assert queue.report([Ending(1, 1)]) == {1: "done"}
        cursor.execute(READ, [table])
        return cursor.fetchone()[0]


def test_an_end_finds_its_lease_by_key_whatever_was_planned(monkeypatch, filled):
    monkeypatch.setattr(statements, "PLAN_SECONDS", math.inf)

    assert 0 < read_to_end_one("leases") < 10


def test_a_claim_reads_the_tasks_it_takes_whatever_was_planned(monkeypatch):
    """Not all live ones for those whose deadline has passed, or that failed on this worker."""
    monkeypatch.setattr(statements, "PLAN_SECONDS", math.inf)
    worker = register()
    with connection.cursor() as cursor:
        cursor.execute(TASKS, [ROWS])
        cursor.execute("UPDATE tasks SET id = -id, status = 'done', completed_at = now()")
        cursor.execute("VACUUM ANALYZE tasks, ready, workers")
        claim(worker)  # is planned while no task is live
        cursor.execute(TASKS, [ROWS])
        cursor.execute("SELECT setval('tasks_id_seq', %s)", [ROWS])
    (task,) = submit("true")
    queue.promote({task.lane_id: 1}, batch=1)

    with transaction.atomic(), connection.cursor() as cursor:
        assert [found.task_id for found in claim(worker)] == [task.pk]
        cursor.execute(READ, ["tasks"])
        assert 0 < cursor.fetchone()[0] < 10


def test_what_was_planned_on_an_empty_table_is_planned_anew(filled):
    time.sleep(statements.PLAN_SECONDS)

    assert 0 < read_to_end_one("tasks") < 10


def test_psycopg_remembers_every_statement():
    names = [path.stem for path in (settings.BASE_DIR / "jobs" / "sql").glob("*.sql")]
    longest = {name: len(statements.text(name)) for name in names}
    assert max(longest.values()) <= MAX_CACHED_STATEMENT_LENGTH, longest
