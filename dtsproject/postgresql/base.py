"""Django's PostgreSQL backend, but that a service waits for no answer for ever.

TCP finds out that a server's machine is gone (settings.py). A server that is frozen keeps its
connections and says nothing, statement_timeout included: there only our own clock helps.
"""

import select
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from django.db import connection
from django.db.backends.postgresql import base

from dtsproject.conf import conf

# How much later than the server we give up ourselves.
PATIENCE_SECONDS = 5.0

_services: list[str] = []


def serve_as(name: str) -> None:
    """Says which service this process is: its connections bear the name and have time limits.

    Commands for people, such as `migrate`, may take as long as they need.
    """
    _services[:] = [name]


@contextmanager
def patient(times: float) -> Iterator[None]:
    """Gives each statement of this thread so many times its limit, where it has one.

    After an error the longer limit stays: a Loop then closes the connection.
    """
    connection.ensure_connection()
    made = connection.connection
    usual, seconds = made.limit_seconds, times * conf().database_timeout_seconds
    if usual is None:
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = %s", [int(seconds * 1000)])
        made.limit_seconds = seconds + PATIENCE_SECONDS
        yield
        made.limit_seconds = usual
        cursor.execute("RESET statement_timeout")


class Connection(psycopg.Connection):
    limit_seconds: float | None = None
    planned_at = float("-inf")  # see jobs/statements.py

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        if timeout is not None or self.limit_seconds is None:
            return super().wait(gen, interval, timeout)
        try:
            return super().wait(gen, interval, self.limit_seconds)
        except psycopg.OperationalError:
            # If it was not answered in time, it may still be done. To cancel it would be worse: a
            # commit held back for the standby's word would then be done without.
            if self.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:
                self.close()
            raise


class DatabaseWrapper(base.DatabaseWrapper):
    Database = types.SimpleNamespace(**{**vars(psycopg), "connect": Connection.connect})  # type: ignore[assignment]

    def get_connection_params(self) -> dict[str, Any]:
        parameters = super().get_connection_params()
        parameters["fallback_application_name"] = " ".join(["dts", *_services])
        if _services:
            milliseconds = int(conf().database_timeout_seconds * 1000)
            # First, so that what the URL says of them holds.
            parameters["options"] = (
                f"-c statement_timeout={milliseconds}"
                f" -c idle_in_transaction_session_timeout={milliseconds}"
                f" {parameters.get('options', '')}"
            )
        return parameters

    def is_usable(self) -> bool:
        """Asked before each request's first statement. A server that ends a connection says so, or
        closes it, so there is something to read; that costs no round trip, as SELECT 1 does."""
        if self.errors_occurred or self.connection is None:
            return super().is_usable()
        if self.connection.closed:
            return False
        heard = select.poll()  # select() knows no descriptor above 1,023
        heard.register(self.connection.fileno(), select.POLLIN)
        return not heard.poll(0)

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        made = super().get_new_connection(conn_params)
        if _services:
            made.limit_seconds = conf().database_timeout_seconds + PATIENCE_SECONDS
        return made
