"""The hand-written SQL in jobs/sql/, one statement a file.

Each is prepared once a connection and planned once a second, whatever its parameters
(plan_cache_mode in settings): planning costs more than running it. So the plan must suit any
number of rows. Where one step hands rows to the next, ARRAY(...) hides their number from the
planner, which then expects few and looks each up by index, instead of joining the whole backlog for
a guess.
"""

import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
from django.db import connection

# What stands in quotes, or the space around what sets words apart anyway.
SPACE = re.compile(r"('[^']*')|\s*([(),=<>])\s*")
# A plan made while a narrow table was empty reads all of that table for each row of a batch, and
# PostgreSQL keeps it until the next VACUUM or ANALYZE. Planning all of them takes some 5 ms.
PLAN_SECONDS = 1.0


@cache
def text(name: str) -> bytes:
    """The statement without its comments and the space that means nothing: psycopg takes a text of
    over 4,096 characters apart anew for each execution."""
    lines = (Path(__file__).parent / "sql" / f"{name}.sql").read_text().splitlines()
    bare = "\n".join(filter(None, (line.partition("--")[0].strip() for line in lines)))
    return SPACE.sub(lambda found: found[1] or found[2], bare).encode()


def rows(name: str, parameters: Mapping[str, Any]) -> list[tuple]:
    """What the statement returns."""
    return execute(name, parameters).fetchall()


def changed(name: str, parameters: Mapping[str, Any]) -> int:
    """How many rows the statement's outermost part changed."""
    return execute(name, parameters).rowcount


def execute(name: str, parameters: Mapping[str, Any]) -> psycopg.Cursor:
    connection.ensure_connection()
    if connection.queries_logged:  # Django's tests and its debugging count these, too
        connection.queries_log.append({"sql": name, "time": ""})
    with connection.wrap_database_errors:
        _plan_anew(connection.connection)
        # Not Django's cursor: that one puts the parameters into the text, which cannot be prepared.
        return psycopg.Cursor(connection.connection).execute(
            text(name), parameters, prepare=True, binary=True
        )


def _plan_anew(made: Any) -> None:
    """Has the connection forget plans that are older than PLAN_SECONDS."""
    now = time.monotonic()
    if now - made.planned_at > PLAN_SECONDS:
        made.execute("DISCARD PLANS")
        made.planned_at = now


def catch_up() -> None:
    """Within a pipeline: waits until all that was sent has been done."""
    with connection.wrap_database_errors:
        connection.connection.execute("SELECT 1").fetchall()


@contextmanager
def pipeline() -> Iterator[None]:
    """Sends what is executed within it at once; outside a transaction, all of it is one."""
    connection.ensure_connection()
    with connection.wrap_database_errors, connection.connection.pipeline():
        yield


@contextmanager
def transaction() -> Iterator[None]:
    """A transaction, or a savepoint within Django's, undone by what is raised in it.

    It waits for the server only where a result is read, and at its end. The ORM does not work
    within.
    """
    connection.ensure_connection()
    try:
        with connection.wrap_database_errors, connection.connection.pipeline():
            if connection.in_atomic_block:
                with connection.connection.transaction():
                    yield
                return
            try:
                yield  # a pipeline is one transaction: neither BEGIN nor COMMIT is waited for
            except BaseException:
                connection.connection.execute("ROLLBACK")  # its end would commit what came before
                raise
    except BaseException:
        _deallocate(connection.connection)
        raise


def _deallocate(made: psycopg.Connection) -> None:
    """After a ROLLBACK in a pipeline psycopg has the server forget all that is prepared, but only
    once the next statement is done; that one, prepared anew, would go with them."""
    with suppress(psycopg.Error):
        made.execute("SELECT 1", prepare=False)


def columns(names: Sequence[str], rows: Iterable[Sequence]) -> dict[str, list]:
    """Rows turned into an array for each column."""
    columns = list(zip(*rows, strict=True)) or [()] * len(names)
    return {name: list(column) for name, column in zip(names, columns, strict=True)}
