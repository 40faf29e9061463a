"""Connections that a thread keeps from request to request (dtsproject/postgresql/base.py)."""

import psycopg
import pytest
from django.conf import settings
from django.db import connection

from tests.helpers import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


def end(pid: int) -> None:
    with psycopg.connect(settings.DATABASE_URL, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s)", [pid])


def backend_pid() -> int:
    connection.ensure_connection()
    return connection.connection.info.backend_pid


def test_what_the_server_ended_between_two_requests_is_replaced():
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
