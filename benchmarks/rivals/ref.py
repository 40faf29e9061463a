"""The reference: the least a Python worker must do, with no product around it.

One narrow table, a partial index, SKIP LOCKED; claims and completes 100 at a time, or one where
only one is there.
"""

import json
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import benchlib
import psycopg
from benchlib import CHURN_BATCH, PRIORITIES, URGENT_PRIORITY

BATCH = 100
COPIED_AT_ONCE = 10_000
TABLE = """
    CREATE TABLE task (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, state smallint NOT NULL DEFAULT 0,
        priority smallint NOT NULL DEFAULT 0, kind text NOT NULL, args jsonb NOT NULL DEFAULT '{}',
        worker int, started_at timestamptz, finished_at timestamptz
    );
    CREATE INDEX task_ready ON task (priority DESC, id) WHERE state = 0;
    CREATE INDEX task_running ON task (id) WHERE state = 1
"""
CLAIM = """
    WITH picked AS (
        SELECT id FROM task WHERE state = 0 ORDER BY priority DESC, id
        FOR UPDATE SKIP LOCKED LIMIT %s
    )
    UPDATE task SET state = 1, worker = 1, started_at = now()
    FROM picked WHERE task.id = picked.id RETURNING task.id, task.kind, task.args
"""
DONE = "UPDATE task SET state = 2, finished_at = now() WHERE id = ANY (%s)"
INSERT = "INSERT INTO task (kind, priority, args) VALUES ('noop', %s, %s)"
info = {
    "best": f"claims {BATCH}, completes {BATCH} by one array; COPY to submit",
    "pending": "SELECT EXISTS (SELECT FROM task WHERE state = 0)"
    " OR EXISTS (SELECT FROM task WHERE state = 1)",
    "finished": """
        INSERT INTO task (state, kind, started_at, finished_at)
        SELECT 2, 'noop', now(), now() FROM generate_series(1, 1000000)""",
}


def connect() -> psycopg.Connection[Any]:
    connection = psycopg.connect(benchlib.DSN, autocommit=True)
    connection.prepare_threshold = 0
    return connection


def setup() -> None:
    with psycopg.connect(benchlib.DSN) as connection:
        connection.execute(TABLE)


def copy(connection: psycopg.Connection[Any], rows: list[tuple[str, int]]) -> None:
    with (
        connection.cursor() as cursor,
        cursor.copy("COPY task (kind, priority) FROM STDIN") as stream,
    ):
        for row in rows:
            stream.write_row(row)


def bulk(n: int, kind: str) -> None:
    connection = connect()

    def submit() -> None:
        for start in range(0, n, COPIED_AT_ONCE):
            copy(connection, [(kind, 0)] * min(COPIED_AT_ONCE, n - start))

    benchlib.timed(submit, n)


def single(n: int) -> None:
    connection = connect()
    benchlib.timed(lambda: [connection.execute(INSERT, (0, "{}")) for _ in range(n)], n)


def urgent(connection: psycopg.Connection[Any], now: float) -> None:
    with connection.transaction():
        connection.execute(INSERT, (URGENT_PRIORITY, json.dumps({"t": now})))
        connection.execute("NOTIFY submitted")


def pace(seconds: float, step: float) -> None:
    connection = connect()
    benchlib.paced(seconds, step, lambda now: urgent(connection, now))


def churn(seconds: float, backlog: int) -> None:
    connection = connect()
    rows = [("noop", n % PRIORITIES) for n in range(CHURN_BATCH)]
    benchlib.churned(
        seconds, backlog, lambda: copy(connection, rows), lambda now: urgent(connection, now)
    )


def worker(profile: str) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    connection, pool = connect(), ThreadPoolExecutor(2)
    connection.execute("LISTEN submitted")
    while True:
        tasks = connection.execute(CLAIM, (BATCH,)).fetchall()
        if not tasks:
            list(connection.notifies(timeout=0.5, stop_after=1))
            continue
        if tasks[0][1] == "shell":
            list(pool.map(lambda _: benchlib.shell(), tasks))
        else:
            for _, _, args in tasks:
                benchlib.mark(args.get("t", 0.0))
        connection.execute(DONE, ([task[0] for task in tasks],))


benchlib.main(info, setup, bulk, single, pace, worker, churn)
