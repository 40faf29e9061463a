"""A plan made while the queue was empty does not outlive a second."""

import time

import pytest
from django.db import connection, transaction

from jobs import queue, statements
from jobs.specs import Ending

RUNNING = 2_000
FILL = """
INSERT INTO leases (task_id, worker_id, fencing_token, retry_count, max_retries, loss_count,
    lane_id, seq, score, job_id)
    SELECT n, 1, 1, 0, 0, 0, 1, n, n, 1 FROM generate_series(1, %s) n
"""
READ = "SELECT idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'leases'"


@pytest.mark.django_db(transaction=True)
def test_what_was_planned_on_an_empty_table_is_planned_anew_when_it_is_full():
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE leases")
        queue.report([Ending(1, 1)])  # planned now, and leases has not one page
        cursor.execute(FILL, [RUNNING])
        time.sleep(statements.PLAN_SECONDS)
        with transaction.atomic():
            queue.report([Ending(1, 1)])
            cursor.execute(READ)
            (read,) = cursor.fetchone()

    assert 0 < read < 10
