"""Connections that a thread keeps from request to request (dtsproject/postgresql/base.py)."""

import psycopg
import pytest
from django.conf import settings
from django.db import connection

from jobs import queue, statements
from jobs.graph import BadDependency
from jobs.specs import JobSpec, Parent
from tests.helpers import shell, submit, wait_until

pytestmark = pytest.mark.django_db(transaction=True)


def end(pid: int) -> None:
    with psycopg.connect(settings.DATABASE_URL, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s)", [pid])


def backend_pid() -> int:
    connection.ensure_connection()
    return connection.connection.info.backend_pid


def test_what_the_server_ended_between_two_requests_is_replaced():
    connection.close()  # an earlier test may have left notices unread
    ended = backend_pid()
    connection.close_if_unusable_or_obsolete()  # as each request begins
    assert connection.is_usable()
    end(ended)
    wait_until(lambda: not connection.is_usable())

    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    assert backend_pid() != ended


def test_one_that_failed_is_asked():
    connection.errors_occurred = True
    with connection.cursor():
        assert connection.is_usable()
    connection.connection.pgconn.finish()
    assert not connection.is_usable()
    connection.close()


def test_one_that_we_closed_ourselves_is_not_used():
    backend_pid()
    connection.connection.close()
    assert not connection.is_usable()
    connection.close()


def test_what_is_prepared_after_a_refused_submit_stays_prepared():
    """After a ROLLBACK, psycopg forgets what is prepared; its word to the server must not come
    after what is prepared next."""
    job = JobSpec(name="x", tasks=[shell("true", depends_on=[Parent(10**9)])])
    submit("true")
    with pytest.raises(BadDependency):
        queue.submit(job)

    for _ in range(2):
        assert statements.rows("token", {"prefix": "none"}) == []
