"""The hot statements read by index and never sort the backlog, whatever its size."""

import json
import re
from collections.abc import Iterator

import pytest
from django.db import connection
from psycopg.sql import SQL, Literal

from jobs import statements
from jobs.models import Lane, Task
from tests.helpers import register, submit

pytestmark = pytest.mark.django_db

WAITING, READY = 50_000, 5_000
NO_MARKS: dict[str, list] = {n: [] for n in ("lanes", "seqs", "scores", "job_ids", "task_ids")}


@pytest.fixture
def backlog():
    """Many rows in every table, and statistics of them."""
    submit("true")
    lane = Lane.objects.get()
    worker = register(slots=100)
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO waiting (task_id, lane_id, score, job_id)"
            " SELECT 1000000 + n, %s, random() * 1e9, 1 FROM generate_series(1, %s) n",
            [lane.pk, WAITING],
        )
        cursor.execute(
            "INSERT INTO ready (task_id, lane_id, seq, score, job_id)"
            " SELECT 3000000 + n, %s, -n, n, 1 FROM generate_series(1, %s) n",
            [lane.pk, READY],
        )
        cursor.execute("ANALYZE waiting, ready, tasks, leases, lanes, workers")
    return lane, worker


def plan(name: str, parameters: dict) -> list[dict]:
    """Every node of the statement's generic plan (see jobs/statements.py), as run."""
    names = list(dict.fromkeys(re.findall(r"%\((\w+)\)[sb]", statements.text(name).decode())))
    numbered = re.sub(
        r"%\((\w+)\)[sb]", lambda m: f"${names.index(m[1]) + 1}", statements.text(name).decode()
    )
    values = SQL(", ").join(Literal(parameters[name]) for name in names)
    raw = connection.connection
    raw.execute(SQL("PREPARE hot AS ") + SQL(numbered))
    (found,) = raw.execute(
        SQL("EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE hot (") + values + SQL(")")
    ).fetchone()
    raw.execute("DEALLOCATE hot")
    return list(
        nodes(found[0]["Plan"] if isinstance(found, list) else json.loads(found)[0]["Plan"])
    )


def nodes(node: dict) -> Iterator[dict]:
    yield node
    for child in node.get("Plans", []):
        yield from nodes(child)


def rows_read(found: list[dict], table: str) -> float:
    """Rows that scans of the table brought up."""
    return sum(
        node["Actual Rows"] * node["Actual Loops"]
        for node in found
        if node.get("Relation Name") == table and "Scan" in node["Node Type"]
    )


def assert_by_index(found: list[dict], table: str, batch: int) -> None:
    scans = [n for n in found if n.get("Relation Name") == table and "Scan" in n["Node Type"]]
    assert scans
    assert not [n for n in scans if n["Node Type"] == "Seq Scan"], table
    # Once to pick and once to delete.
    assert rows_read(found, table) <= 2 * batch
    for node in found:
        if node["Node Type"] in ("Sort", "Incremental Sort"):
            assert node["Actual Rows"] <= batch


def test_promotion_reads_its_batch_by_index(backlog):
    lane, _ = backlog
    found = plan(
        "promote",
        {
            "lanes": [lane.pk],
            "rooms": [100],
            "batch": 100,
            "scores": [-(2**63)],
            "job_ids": [0],
            "task_ids": [0],
        },
    )

    assert_by_index(found, "waiting", 100)


def test_a_claim_reads_its_batch_by_index(backlog):
    _, worker = backlog
    found = plan(
        "claim",
        {
            "worker_id": worker.pk,
            "boot_id": worker.boot_id,
            "limit": 10,
            "grace_seconds": 1,
            **NO_MARKS,
        },
    )

    assert_by_index(found, "ready", 10)


def test_the_window_is_measured_without_reading_the_backlog(backlog):
    found = plan("window", {"lease_seconds": 30, **NO_MARKS})

    assert rows_read(found, "waiting") <= 1


@pytest.mark.parametrize("page", [{}, {"final_status": None}, {"final_status": "failed"}])
def test_the_page_of_a_job_reads_that_job_alone(page):
    """However many tasks are newer, and of whatever jobs."""
    submit("true")
    (first,) = Task.objects.all()
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO jobs (id, name, queue, labels, submitted_by)"
            " SELECT 1000 + n, '', 'default', '{}', '' FROM generate_series(0, 49) n"
        )
        cursor.execute(
            "INSERT INTO tasks (id, job_id, name, queue, kind, payload, priority, requires,"
            " max_retries, lane_id, score, status, generation, attempt, fencing_token, retry_count,"
            " loss_count, result_text, completed_at)"
            " SELECT 1000000 + n, 1000 + n / 1000, '', 'default', 'shell', '{}', 0, '{}', 0, %s, n,"
            " CASE WHEN ended THEN 'failed' ELSE 'pending' END, 1, 0, 0, 0, 0, '',"
            " CASE WHEN ended THEN now() END"
            " FROM generate_series(0, 49999) n, LATERAL (SELECT n %% 100 = 0 AS ended) a",
            [first.lane_id],
        )
        cursor.execute("ANALYZE tasks")

    tasks = Task.objects.of_job(1010).filter(**page).order_by("-pk")[:51]
    (found,) = json.loads(tasks.explain(format="json", analyze=True))

    read = sum(
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        for node in nodes(found["Plan"])
        if node.get("Relation Name") == "tasks"
    )
    assert read <= 1000 + 8
    assert len(tasks) == (10 if page.get("final_status") else 51)
