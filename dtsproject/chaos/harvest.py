"""Reads from the run's own database what the history needs of it."""

import contextlib
import threading
import time
from typing import Any

import psycopg
from psycopg.rows import dict_row
from psycopg.sql import SQL, Identifier

from dtsproject.chaos import timetable, webs
from dtsproject.chaos.history import History, now
from jobs.states import TERMINAL

# Each change of a task's state, noted by the database itself in the transaction that makes it.
NOTE_MOVES = """
CREATE TABLE chaos_moves (
    n bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, task bigint, generation int,
    before text, after text, token bigint, at timestamptz DEFAULT clock_timestamp()
);
CREATE FUNCTION chaos_note_move() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO chaos_moves (task, generation, before, after, token)
    VALUES (NEW.id, NEW.generation, OLD.status, NEW.status, NEW.fencing_token);
    RETURN NULL;
END $$;
CREATE TRIGGER chaos_note_move AFTER UPDATE OF status ON tasks
    FOR EACH ROW EXECUTE FUNCTION chaos_note_move();
"""
FACTS = {
    "moved": """
        SELECT extract(epoch FROM at)::float8 AS at, task, generation, before, after, token
        FROM chaos_moves ORDER BY n""",
    "attempt": """
        SELECT extract(epoch FROM ended_at)::float8 AS at, task_id AS task, generation,
            fencing_token AS token, outcome, error, worker_id AS worker
        FROM attempts""",
    "task": """
        SELECT extract(epoch FROM updated_at)::float8 AS at, id AS task, job_id AS job, name,
            status, generation, fencing_token AS token, concurrency_key
        FROM tasks""",
    "job": """
        SELECT extract(epoch FROM created_at)::float8 AS at, id AS job, name,
            "unique"->>'key' AS key
        FROM jobs""",
    **webs.FACTS,
    **timetable.FACTS,
}
NARROW = ("waiting", "ready", "leases", "deferred", "blocked")


def connect(url: str) -> psycopg.Connection[Any]:
    return psycopg.connect(url, autocommit=True, connect_timeout=5)


def note_moves(url: str) -> None:
    with connect(url) as database:
        database.execute(NOTE_MOVES)


def counts(database: psycopg.Connection[Any]) -> dict[str, int]:
    """How many tasks are in each state."""
    return dict(database.execute("SELECT status, count(*) FROM tasks GROUP BY 1").fetchall())


class Watch(threading.Thread):
    """Keeps count for a person who looks on; a database that is away is looked at again."""

    def __init__(self, url: str) -> None:
        super().__init__(name="watch", daemon=True)
        self.url = url
        self.counts: dict[str, int] = {}

    def __str__(self) -> str:
        ended = sum(number for status, number in self.counts.items() if status in TERMINAL)
        return f"{ended} of {sum(self.counts.values())} tasks ended"

    def run(self) -> None:
        while True:
            with contextlib.suppress(psycopg.Error), connect(self.url) as database:
                while True:
                    self.counts = counts(database)
                    time.sleep(1)
            time.sleep(1)


def ended_and_live(url: str) -> tuple[int, int]:
    """How many tasks have ended, and how many have not."""
    with connect(url) as database:
        found = counts(database)
    ended = sum(number for status, number in found.items() if status in TERMINAL)
    return ended, sum(found.values()) - ended


def is_behind(url: str) -> bool:
    """Whether a schedule's time has come that no scheduler has dealt with yet."""
    with connect(url) as database:
        row = database.execute(timetable.BEHIND).fetchone()
    return bool(row and row[0])


def gather(url: str, history: History) -> None:
    """Adds all the database knows; its times, of the wall clock, become CLOCK_BOOTTIME."""
    offset = time.time() - now()  # of this machine, which is the database's too
    with psycopg.connect(url, row_factory=dict_row) as database:
        for event, query in FACTS.items():
            for fact in database.execute(query):
                history.add(event, **fact | {"at": fact["at"] - offset})
        for table in NARROW:
            rows = database.execute(SQL("SELECT * FROM {}").format(Identifier(table)))
            for row in rows:
                history.add("left", what=table, detail=f"task {row['task_id']}")
