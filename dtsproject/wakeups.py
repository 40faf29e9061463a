"""Wake-ups between processes, by PostgreSQL's NOTIFY. They hasten; polling alone is enough.

NOTIFY takes a database-wide lock until its transaction ends, so it is a statement of its own,
after the commit of what it announces.
"""

import time

import psycopg
import structlog
from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection, transaction
from psycopg.conninfo import conninfo_to_dict

from dtsproject.backoff import Backoff
from dtsproject.postgresql.base import Connection

SUBMITTED, READY, CANCELLED = "dts_submitted", "dts_ready", "dts_cancelled"
ENDED = "dts_ended"  # a task on which others depend

LISTEN_SECONDS = 5.0

log = structlog.get_logger(__name__)


def notify(channel: str, payload: str = "") -> None:
    """Announces, once the transaction at hand (if any) has committed."""
    transaction.on_commit(lambda: _notify(channel, payload), robust=True)


def _notify(channel: str, payload: str) -> None:
    try:
        connection.ensure_connection()
        with connection.wrap_database_errors:
            psycopg.Cursor(connection.connection).execute(
                "SELECT pg_notify(%s, %s)", [channel, payload], prepare=True
            )
    except DatabaseError:
        log.warning("wake_up_not_sent", channel=channel)


class Listener:
    """Hears the named channels on a connection of its own, outside Django's."""

    def __init__(self, *channels: str) -> None:
        self.channels = channels
        self._connection: Connection | None = None
        self._backoff = Backoff()
        self._retry_at = 0.0

    def fileno(self) -> int | None:
        """The socket to select on, if there is a connection."""
        self._connect()
        return self._connection.fileno() if self._connection else None

    def heard(self) -> set[tuple[str, str]]:
        """The channels heard since the last call, each with its payload, without waiting."""
        self._connect()
        if self._connection is None:
            return set()
        try:
            return {(n.channel, n.payload) for n in self._connection.notifies(timeout=0)}
        except psycopg.Error:
            self.close()
            return {(channel, "") for channel in self.channels}

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> None:
        if self._connection is not None or time.monotonic() < self._retry_at:
            return
        try:
            parameters = connection.get_connection_params()
            elsewhere = conninfo_to_dict(settings.LISTEN_URL, dbname=parameters["dbname"])
            self._connection = Connection.connect(**{**parameters, **elsewhere, "autocommit": True})
            self._connection.limit_seconds = LISTEN_SECONDS
            for channel in self.channels:
                self._connection.execute(f"LISTEN {channel}")
            self._backoff.reset()
        except psycopg.Error:
            self.close()
            self._retry_at = time.monotonic() + self._backoff.next()
