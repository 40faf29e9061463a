"""The PostgreSQL that all peers share: a throw-away one, or the one BENCH_DATABASE_URL names."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from benchmarks.errors import BenchError
from dtsproject.embedded import Cluster
from dtsproject.embedded.folder import default_folder

PREFIX = "dts_bench_"
# Beside embedded's own settings. A CHECKPOINT goes before each drain, so that none falls into it.
OURS = {"checkpoint_timeout": "30min"}
STATED = [
    "server_version", "fsync", "synchronous_commit", "full_page_writes", "wal_level",
    "shared_buffers", "max_wal_size", "checkpoint_timeout", "autovacuum", "jit", "work_mem",
    "max_connections",
]  # fmt: skip


class Database:
    """Makes databases of its own on the server at `url`, and drops them."""

    def __init__(self, url: str) -> None:
        self._parts = conninfo_to_dict(url)
        self._made: set[str] = set()

    def url(self, name: str) -> str:
        """A form that libpq, asyncpg and Node.js all read, for a socket as for TCP."""
        parts = {key: str(value) for key, value in self._parts.items() if value is not None}
        user, password = (quote(parts.pop(key, ""), safe="") for key in ("user", "password"))
        parts.pop("dbname", None)
        return f"postgresql://{user}:{password}@/{PREFIX}{name}?{urlencode(parts)}"

    def environment(self, name: str) -> dict[str, str]:
        """libpq's own variables for the database `name`."""
        names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD"}
        found = {names[k]: str(v) for k, v in self._parts.items() if k in names and v is not None}
        return {**found, "PGDATABASE": PREFIX + name}

    def connect(self, name: str | None = None) -> psycopg.Connection[Any]:
        """A connection in autocommit; without a name to the database of the URL."""
        parts = dict(self._parts)
        if name:
            parts["dbname"] = PREFIX + name
        return psycopg.connect(**parts, autocommit=True)  # type: ignore[arg-type]  # libpq takes any of its options

    def create(self, name: str, template: str | None = None) -> str:
        """Makes the database anew, as a copy of `template` if given. Returns its name."""
        self.drop(name)
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(PREFIX + name))
        if template:
            statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(PREFIX + template))
        with self.connect() as connection:
            connection.execute(statement)
        self._made.add(name)
        return name

    def has(self, name: str) -> bool:
        """Whether this run made the database `name`."""
        return name in self._made

    def drop(self, name: str) -> None:
        statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
        with self.connect() as connection:
            connection.execute(statement.format(sql.Identifier(PREFIX + name)))
        self._made.discard(name)

    def close(self) -> None:
        for name in sorted(self._made):
            self.drop(name)

    def settings(self) -> dict[str, str]:
        """The settings that matter, as the server has them now."""
        with self.connect() as connection:
            rows = connection.execute(
                "SELECT name, current_setting(name) FROM unnest(%s::text[]) name", [STATED]
            )
            return dict(rows.fetchall())


def wal_position(connection: psycopg.Connection[Any]) -> int:
    """Bytes of WAL written since the server was made."""
    row = connection.execute("SELECT (pg_current_wal_lsn() - '0/0')::bigint").fetchone()
    return int(row[0]) if row else 0


@contextmanager
def opened(work: Path) -> Iterator[Database]:
    """The database of a run. Raises BenchError if another run has the throw-away one."""
    if url := os.environ.get("BENCH_DATABASE_URL"):
        database = Database(url)
        try:
            yield database
        finally:
            database.close()
        return
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BenchError("another benchmark is running here; wait for its end") from None
        yield from _throw_away()


def _throw_away() -> Iterator[Database]:
    usual = default_folder()
    cluster = Cluster(usual.with_name(f"{usual.name}-bench"))
    _remove(cluster)  # of a run that was killed
    try:
        cluster.start_child()
        database = Database(cluster.url())
        with database.connect() as connection:
            for name, value in OURS.items():
                connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
            connection.execute("SELECT pg_reload_conf()")
        yield database
    finally:
        _remove(cluster)


def _remove(cluster: Cluster) -> None:
    cluster.stop()
    shutil.rmtree(cluster.folder.path, ignore_errors=True)
